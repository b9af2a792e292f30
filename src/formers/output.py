"""What comes out of a model, and what may be handed in to look at it on its way."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from formers.tokens import Seen

if TYPE_CHECKING:
    from formers.exits.halting.rules import Halts


class ModelState(NamedTuple):
    """How many real tokens each row has seen, one number or (B,), and what each block remembers."""

    seen: Seen
    blocks: tuple[Any, ...]


class Output(NamedTuple):
    """logits (B, T, V) or those asked for by `logits_at`; hidden (B, T, M), normalised as the head sees it.

    state: continues this call; None with remember=False. losses: named scalars for the training loss.
    pooled: an encoder's pooled classes (B, C). records: named tensors that layers noted, in the order of the layers.
    nats: what the `loss` that was handed in made of the depth's output; then there is nothing to see but state, losses,
    records and exits: logits, hidden and pooled are None. exits: what a model that can be left early is to learn before
    its end.
    """

    logits: Tensor | None
    hidden: Tensor | None
    state: Any
    losses: dict[str, Tensor]
    pooled: Tensor | None = None
    records: dict[str, tuple[Tensor, ...]] = {}  # noqa: RUF012 - never changed
    nats: Tensor | None = None
    exits: "AtExits | None" = None


class AtExits(NamedTuple):
    """What a depth tells in training at the exits before its end.

    found: of each exit what `Output` has of the end, logits, or nats where a `loss` was handed in. weights: (L,), what is
    lost at each exit counts, the end being the last. halts: what a rule learns of how each exit does, the end too; judged:
    how they do, each as by `StreamLoss.judge`, where a `loss` was handed in.
    """

    found: tuple[Tensor, ...]
    weights: Tensor
    halts: "Halts | None" = None
    judged: tuple[tuple[Tensor, Tensor], ...] = ()


class End(NamedTuple):
    """How a depth that can be left early is read, which its last layer's `end(out, call)` tells; see `Exits`.

    stream: (B, T, M'), and read: makes logits (..., V) of any of it. early: the same of the exits before the end that are
    to be trained; weights: (L,), what is lost at each exit counts, the end being the last; halts: what a rule learns of
    how each exit does.
    """

    stream: Tensor
    read: Callable[[Tensor], Tensor]
    early: tuple[tuple[Tensor, Callable[[Tensor], Tensor]], ...] = ()
    weights: Tensor | None = None
    halts: "Halts | None" = None


class StreamLoss(Protocol):
    """A loss that is worked out from what the depth puts out, so that logits need not exist as a whole."""

    def __call__(self, stream: Tensor, read: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """stream (..., M), before the last norm; read: from any of it to logits, by these parameters. Gives a scalar."""

    def judge(self, stream: Tensor, read: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """log p of each target, and whether it is the likeliest token, both (...) and without a gradient."""
