"""The Memorizing Transformer: what a training step costs with a memory, over that of the same model without one."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention import Attention, Blocks, Causal
from formers.attention.memorizing import ApproximateSearch, ExactSearch, MemorizingAttention, Search
from formers.attention.memorizing.layer import Memorized
from formers.attention.memorizing.store import Store
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.block import Block
from formers.feedforward import MLP
from formers.model import Decoder
from formers.output import ModelState
from formers.places import Places
from formers.position import Rotary
from formers.report.rows import Row, value_at_most
from formers.state import Log, handed_on
from formers.train import AdamW

PACKAGE = Rival(
    "the same of memorizing-transformers-pytorch, its memory filled with as many keys of one head, of which 32 are retrieved",
    package="memorizing-transformers-pytorch",
    extra="rivals-memory",
)


@dataclass(frozen=True)
class Shape:
    """One row, read a segment a step, by a model of so many layers, one of which remembers `memory` tokens."""

    memory: int = 262_144
    segment: int = 512
    vocab: int = 258
    dim: int = 512
    depth: int = 12
    layer: int = 9
    heads: int = 8
    hidden: int = 2048
    top_k: int = 32

    def ours(self, search: Search | None) -> "Reader":
        """A reader with a full memory that is searched so; None: without one."""
        torch.manual_seed(0)
        position = Rotary()
        local = Attention(self.heads, pattern=Causal() & Blocks(self.segment, 1), position=position)
        layers: list[Any] = [local] * self.depth
        if search is not None:
            layers[self.layer - 1] = MemorizingAttention(
                self.heads, self.segment, self.memory, self.top_k, position=position, search=search
            )
        blocks = tuple(Block((layer, MLP(self.hidden))) for layer in layers)
        model = Decoder("memorizing", self.vocab, self.dim, blocks).build().train()
        return Reader(self, model, None if search is None else self.layer - 1)

    def tokens(self, step: int) -> Tensor:
        """(1, segment + 1)."""
        return torch.randint(self.vocab, (1, self.segment + 1), generator=torch.Generator().manual_seed(step))

    def remembered(self, keys: int) -> tuple[Tensor, Tensor]:
        """Random keys of length 1, and values: (1, keys, memory, head_dim) each."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, keys, self.memory, self.dim // self.heads)
        return F.normalize(torch.randn(shape, generator=generator), dim=-1), torch.randn(shape, generator=generator)


class Reader:
    """Our training step by step, its state handed on as the training loop does. filled: the block whose memory is full."""

    def __init__(self, shape: Shape, model: nn.Module, filled: int | None) -> None:
        self.shape, self.model, self.step = shape, model, 2
        self.optimizer = AdamW().build(model)
        begun = torch.cat([shape.tokens(0)[:, 1:], shape.tokens(1)[:, 1:]], 1)
        with torch.no_grad():
            state = model(begun, logits_at=None).state
        self.state = state if filled is None else self._filled(state, filled)

    def _filled(self, state: ModelState, number: int) -> ModelState:
        """The state with random keys and values in place of those of two segments. They end where the stream does."""
        shape, blocks = self.shape, list(state.blocks)
        old, *others = blocks[number]
        keys, values = (Log(t[:, :, :-1]).extend(t[:, :, -1:]) for t in shape.remembered(shape.heads))
        places = Places.run(2 * shape.segment - shape.memory, shape.memory)
        blocks[number] = (Memorized(old.local, Store(keys, values, places)), *others)
        return state._replace(blocks=tuple(blocks))

    def __call__(self) -> None:
        tokens = self.shape.tokens(self.step)
        out = self.model(tokens[:, :-1], self.state)
        F.cross_entropy(out.logits[0], tokens[0, 1:]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state, self.step = handed_on(out.state), self.step + 1


def package(shape: Shape, folder: Path, *, remembers: bool) -> Callable[[], None]:
    """Theirs, with the cache of one segment that ours has. It begins its memory anew as soon as that is full, so it is
    given room for twice as much. Theirs without a memory is the same model with no layer that has one."""
    from memorizing_transformers_pytorch import MemorizingTransformer

    torch.manual_seed(0)
    model: Any = MemorizingTransformer(
        num_tokens=shape.vocab,
        dim=shape.dim,
        depth=shape.depth,
        dim_head=shape.dim // shape.heads,
        heads=shape.heads,
        ff_mult=shape.hidden // shape.dim,
        memorizing_layers=(shape.layer,) if remembers else (),
        max_knn_memories=2 * shape.memory,
        num_retrieved_memories=shape.top_k,
        knn_memories_directory=str(folder),
        xl_max_memories=shape.segment,
    ).train()
    memories = model.create_knn_memories(batch_size=1)
    if remembers:
        k, v = shape.remembered(1)
        memories[0].add(torch.stack([k[:, 0], v[:, 0]], 2))
    optimizer, steps, past = AdamW().build(model), itertools.count(2), [None]

    def turn() -> None:
        tokens = shape.tokens(next(steps))
        logits, past[0] = model(tokens[:, :-1], knn_memories=memories, xl_memories=past[0])
        F.cross_entropy(logits[0], tokens[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return turn


FULL = Shape()
TINY = Shape(memory=640, segment=32, dim=32, depth=3, layer=2, heads=2, hidden=32, top_k=4)


@BENCHES.case(
    "memory",
    "Memorizing Transformer (12 layers, dim 512, 8 heads, segments of 512): a training step with a memory of 262,144 "
    "tokens over one without",
    unit="times",
    better="lower",
    rival=PACKAGE,
)
def step_with_a_memory(trial: Trial) -> Iterator[Row]:
    """One row, fp32. The memory holds random keys; keys that are much alike cost exact search a second look."""
    shape = TINY if trial.quick else FULL
    warmup, rounds = (1, 1) if trial.quick else (2, 7)
    plain, exact, near = "without a memory", "exact search", "approximate search"
    with tempfile.TemporaryDirectory() as folder:
        turns: dict[str, Callable[[], None]] = {plain: shape.ours(None)}
        turns |= {exact: shape.ours(ExactSearch()), near: shape.ours(ApproximateSearch())}
        if PACKAGE.installed:
            turns["theirs without"] = package(shape, Path(folder) / "without", remembers=False)
            turns["theirs"] = package(shape, Path(folder) / "with", remembers=True)
        with trial.progress(trial.case.title, (warmup + rounds) * len(turns)) as tick:
            seconds = race(turns, warmup=warmup, rounds=rounds, tick=tick)
    theirs = seconds["theirs"] / seconds["theirs without"] if PACKAGE.installed else None
    for name in (exact, near):
        note = f"{1e3 * seconds[name]:,.0f} ms over {1e3 * seconds[plain]:,.0f} ms"
        if PACKAGE.installed:
            note += f"; theirs {1e3 * seconds['theirs']:,.0f} ms over {1e3 * seconds['theirs without']:,.0f} ms"
        else:
            note += f"; theirs {PACKAGE.remedy}"
        yield trial.row(name, seconds[name] / seconds[plain], theirs, goal=value_at_most(2), note=note)
