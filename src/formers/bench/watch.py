"""Where the time of a long training step goes, sublayer by sublayer, told while it runs."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from formers.call import Call, Out
from formers.parts import Part, parts_of

Key = tuple[str, str]


class Ledger:
    """Seconds by (phase, kind of work). What is begun lasts until something else is.

    tick: told of each piece of work that begins, with its phase and kind. "" is no work: its time is not counted.
    """

    def __init__(self, tick: Callable[[str], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[Key, float] = defaultdict(float)
        self.phase = "forward"
        self._tick, self._clock = tick, clock
        self._since, self._kind = clock(), ""

    def begin(self, kind: str, phase: str | None = None) -> None:
        """From now on the time is of this kind, and where a phase is named, of that phase."""
        now = self._clock()
        if self._kind:
            self.seconds[self.phase, self._kind] += now - self._since
        self._since, self._kind = now, kind
        self.phase = phase or self.phase

    def piece(self) -> None:
        """A piece of the work that goes on begins."""
        self._tick(f"{self.phase}, {self._kind}" if self._kind else self.phase)


class Watched(nn.Module):
    """A sublayer that tells of each of its parts."""

    def __init__(self, layer: nn.Module, ledger: Ledger) -> None:
        super().__init__()
        self.layer, self._ledger = layer, ledger

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        self._ledger.piece()
        out: Out = self.layer(x, call, state, choices)
        return out

    def parts(self, call: Call, choices: Any = None) -> list[Part] | None:
        """Those of the sublayer, if it has any."""
        offered = parts_of(self.layer, call, None, choices)
        return None if offered is None else [Part(part.rows, self._told(part.run)) for part in offered]

    def _told(self, run: Callable[[Tensor], Out]) -> Callable[[Tensor], Out]:
        def told(x: Tensor) -> Out:
            self._ledger.piece()
            return run(x)

        return told


def watch(model: Any, kinds: Sequence[Sequence[str]], ledger: Ledger) -> None:
    """Have a built Reformer tell what it is at, there and back. kinds: of each block's sublayers.

    A sublayer begins where its norm is asked for, which both ways are begun with.
    """
    model.embedding.register_forward_pre_hook(lambda *_: ledger.begin("embedding"))
    model.embedding.register_forward_hook(lambda module, given, y: _at_gradient(y, ledger))
    model.norm.register_forward_pre_hook(lambda *_: ledger.begin("loss"))
    for block, its in zip(model.stack.blocks[0].blocks, kinds, strict=True):
        for i, (norm, kind) in enumerate(zip(block.residual.norms, its, strict=True)):
            norm.register_forward_pre_hook(lambda *_, kind=kind: ledger.begin(kind))
            block.sublayers[i] = Watched(block.sublayers[i], ledger)


def _at_gradient(y: Tensor, ledger: Ledger) -> None:
    if y.requires_grad:
        y.register_hook(lambda gradient: ledger.begin("embedding"))


def pieces_of(model: Any, call: Call) -> int:
    """How many pieces of work a watched model will tell of in a training step, there and back."""
    layers = [layer for block in model.stack.blocks[0].blocks for layer in block.sublayers]
    found = [parts_of(layer, call) for layer in layers]
    return 2 * sum(1 if parts is None else len(parts) for parts in found)
