"""What comes out of a model, and what may be handed in to look at it on its way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from formers.tokens import Seen


class ModelState(NamedTuple):
    """How many real tokens each row has seen, one number or (B,), and what each block remembers."""

    seen: Seen
    blocks: tuple[Any, ...]


class Output(NamedTuple):
    """logits (B, T, V) or those asked for by `logits_at`; hidden (B, T, M), normalised as the head sees it.

    state: continues this call; None with remember=False. losses: named scalars for the training loss.
    pooled: an encoder's pooled classes (B, C). records: named tensors that layers noted, in the order of the layers.
    nats: what the `loss` that was handed in made of the depth's output; then there is nothing to see but state, losses
    and records: logits, hidden and pooled are None.
    """

    logits: Tensor | None
    hidden: Tensor | None
    state: Any
    losses: dict[str, Tensor]
    pooled: Tensor | None = None
    records: dict[str, tuple[Tensor, ...]] = {}  # noqa: RUF012 - never changed
    nats: Tensor | None = None


class StreamLoss(Protocol):
    """A loss that is worked out from what the depth puts out, so that logits need not exist as a whole."""

    def __call__(self, stream: Tensor, read: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """stream (..., M), before the last norm; read: from any of it to logits, by these parameters. Gives a scalar."""
