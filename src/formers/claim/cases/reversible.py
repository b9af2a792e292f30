"""Reversible residuals: training keeps the same few bytes for any depth, and gradients are those of ordinary autograd."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from formers.attention import Attention, Dense
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.call import Call, Out
from formers.feedforward import MLP
from formers.places import Places
from formers.replay import drawn
from formers.report.rows import Row, value_at_least, value_at_most
from formers.reversible import Reversible, ReversibleLayer
from formers.spec import Site

DIM, HEADS, HIDDEN, TOKENS = 32, 2, 64, 64
DEPTHS = (4, 8, 16, 32)
RATE = 0.5
ORDINARY = Rival("the same two streams and the same blocks by ordinary autograd, which keeps what every layer needs")
EXACT = value_at_most(1e-5)


@CLAIMS.case(
    "reversible",
    "residual pairs of arXiv:1707.04585 (dim 32, 64 tokens), trained in fp32",
    unit="KB",
    better="lower",
    rival=ORDINARY,
)
def reversible(trial: Trial) -> Iterator[Row]:
    """Bytes kept for the backward pass, and errors of gradients: without dropout, with it, and with it drawn anew."""
    depths = DEPTHS[:2] if trial.quick else DEPTHS
    found = {depth: compare(built(depth)) for depth in depths}
    bound = value_at_most(found[depths[0]].kept)
    for depth, one in found.items():
        yield trial.row(f"kept by autograd, {depth} blocks", one.kept, one.ordinary, goal=bound)
    note = (
        "where torch's generator stood before each of its two sublayers, so that dropout can be replayed; in any width"
    )
    state = 2 * sum(part.nbytes for part in drawn(torch.device("cpu"))) / 1e3
    yield trial.row("kept beside it, for each block", state, rival=None, goal=None, note=note)
    error = max(one.error for one in found.values())
    yield gradient(trial, "largest relative error of a gradient", error, goal=EXACT)
    replayed = compare(with_dropout(built(depths[0]), None)).error
    yield gradient(trial, f"the same, dropout {RATE}, replayed", replayed, goal=EXACT)
    hidden = torch.Generator()
    forgotten = compare(with_dropout(built(depths[0]), hidden), hidden).error
    yield gradient(
        trial,
        f"the same, dropout {RATE}, drawn anew",
        forgotten,
        better="higher",
        goal=value_at_least(0.1),
        note="what goes wrong without a replay: these masks come from a generator that nobody puts back",
    )


def gradient(trial: Trial, name: str, error: float, **changes: Any) -> Row:
    """A row that tells the error of gradients."""
    return trial.row(name, error, unit="of the largest", rival=None, **changes)


def built(depth: int) -> ReversibleLayer:
    """A reversible stack of so many blocks; its parameters depend on the depth alone."""
    torch.manual_seed(0)
    attention = Attention(HEADS, projection=Dense(bias=False))  # a bias of keys has no gradient but rounding
    blocks = stack(Block((attention, MLP(HIDDEN))), times=depth)
    layer = Reversible(blocks).build(Site(DIM, causal=True))
    if not isinstance(layer, ReversibleLayer):
        raise TypeError(f"a Reversible builds {type(layer).__name__}, not a ReversibleLayer")
    return layer


def with_dropout(layer: ReversibleLayer, chance: torch.Generator | None) -> ReversibleLayer:
    """The stack with dropout behind every sublayer, drawn from torch's generator, or from one that only this knows."""
    block: Any
    for block in layer.blocks:
        block.sublayers = nn.ModuleList(Dropped(sublayer, chance) for sublayer in block.sublayers)
    return layer


class Dropped(nn.Module):
    """A sublayer and dropout from a generator of one's choice; None: torch's own."""

    def __init__(self, layer: nn.Module, chance: torch.Generator | None) -> None:
        super().__init__()
        self.layer, self.chance = layer, chance

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        out: Out = self.layer(x, call, state, choices)
        keep = torch.empty_like(out.y).bernoulli_(1 - RATE, generator=self.chance)
        return out._replace(y=out.y * keep / (1 - RATE))


class Compared(NamedTuple):
    """What a reversible and an ordinary pass keep for their way back, in KB, and the largest error of a gradient, as a
    share of the largest element of the gradient that it is in."""

    kept: float
    ordinary: float
    error: float


def compare(layer: ReversibleLayer, chance: torch.Generator = torch.default_generator) -> Compared:
    """One step's gradients, both ways, of forward passes that draw the same random numbers from `chance`."""
    x = torch.randn(1, TOKENS, DIM, generator=torch.Generator().manual_seed(1)).requires_grad_()
    call, learned = Call(Places.run(0, TOKENS), remember=False), [x, *layer.parameters()]
    gradients, kept = [], []
    for run in (lambda: layer(x, call).y, lambda: ordinary(layer, x, call)):
        chance.manual_seed(2)
        tally = Kept(learned)
        with tally:
            y = run()
        gradients.append(torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), learned))
        kept.append(tally.kilobytes)
    ours, theirs = gradients
    errors = [((one - other).abs().max() / other.abs().max()).item() for one, other in zip(ours, theirs, strict=True)]
    return Compared(kept[0], kept[1], max(errors))


def ordinary(layer: ReversibleLayer, x: Tensor, call: Call) -> Tensor:
    """The same sums, with nothing rebuilt."""
    to, seen = x, x
    block: Any
    for block in layer.blocks:
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            to, seen = seen, to + sublayer(norm(seen), call).y
    return torch.cat([to, seen], -1)


class Kept(saved_tensors_hooks):
    """Counts the bytes that autograd keeps for a backward pass, each once, and parameters and the input not at all."""

    def __init__(self, learned: list[Tensor]) -> None:
        self._own = {part.untyped_storage().data_ptr() for part in learned}
        self._sizes: dict[int, int] = {}
        super().__init__(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def kilobytes(self) -> float:
        return sum(self._sizes.values()) / 1e3
