"""When a token leaves a depth before its end: the contract of the rules that decide it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from torch import Tensor, nn

from formers.call import Call
from formers.spec.core import Site, Spec

if TYPE_CHECKING:
    from formers.exits.halting.rules import Halts

Read = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exit:
    """Where tokens stand when they are asked whether they leave.

    number: of the block behind them, from 0; the last block of a depth is not asked about. x: (B, T, M), what that block
    put out; before: (B, T, M), what was put into it, which for number 0 no block has made. stays: (B, T) bool, the real
    tokens that are still here. read: from hidden states (..., M) to logits (..., V), as at this exit.
    """

    number: int
    x: Tensor
    before: Tensor
    stays: Tensor
    read: Read


class Told(NamedTuple):
    """What a rule tells training: named scalars to be added to the loss, and named tensors to look at or to train on."""

    losses: dict[str, Tensor] = {}  # noqa: RUF012 - never changed
    records: dict[str, tuple[Tensor, ...]] = {}  # noqa: RUF012 - never changed


class ExitRule(Spec):
    """Says, token by token, after which block to leave. Built for a depth of so many blocks.

    compares: whether it learns by comparing all exits of one pass, so that all tokens have to run through all of them.
    """

    compares: ClassVar[bool] = False

    @property
    def reads(self) -> bool:
        """Whether it asks for the logits at each exit."""
        return False

    def misfits(self, depth: int) -> Iterator[tuple[str, str]]:
        """What is wrong with this rule in a depth of so many blocks, as `problems` says it."""
        return iter(())

    def build(self, site: Site, depth: int) -> "ExitRuleLayer":
        raise NotImplementedError


class ExitRuleLayer(nn.Module):
    """Holds parameters and nothing else: what it found out in a call goes from hand to hand as `kept`."""

    def begin(self, x: Tensor, call: Call, past: Any = None) -> Any:
        """What it goes by in this call; x (B, T, M) is what enters the first block, past: what it `remembers` of the call
        before, None where a stream begins."""
        return None

    def remembers(self, kept: Any) -> Any:
        """What it needs in the call that continues this one, a state; None: nothing, as most rules."""
        return None

    def leaves(self, here: Exit, kept: Any, call: Call) -> tuple[Tensor | None, Any]:
        """Which tokens leave here, (B, T) bool, of which those that have left already do not count; None: none does.
        And what it goes by from here on.

        A token's answer may depend on that token and on earlier ones, never on later ones. In training, too, it is the
        rule that decides: all tokens run to the end where it says None.
        """
        raise NotImplementedError

    def tell(self, exits: tuple[Tensor, ...], reads: tuple[Read, ...], kept: Any, call: Call) -> Told:
        """What it tells training, of the hidden states (B, T, M) after each block, and of how each exit is read."""
        return Told()

    def halts(self, records: Mapping[str, tuple[Tensor, ...]], call: Call) -> "Halts | None":
        """What it is to learn of how each exit does on the targets, given the records of its pass; None: nothing."""
        return None
