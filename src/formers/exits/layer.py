"""A depth that tokens may leave before its end. CALM, Schuster et al. 2022, arXiv:2207.07061; Elbayad et al. 2020."""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.layer import Attention
from formers.block import Block, chain_problems
from formers.call import Call, Layer, Out, add_losses, add_records, skip
from formers.exits.mixed import along_paths
from formers.exits.rule import Exit, ExitRule, Read, Told
from formers.exits.waiting import MOST, Waiting, may_wait
from formers.head import Head
from formers.norm import LayerNorm, Norm
from formers.output import End
from formers.spec.core import Site, parts_within


class Exits(Layer):
    """Blocks, after each of which a token may leave. The last layer of a depth.

    Schuster et al. 2022 (CALM), arXiv:2207.07061; Elbayad et al. 2020 (Depth-Adaptive Transformer), arXiv:1910.10073.
    The hidden state of a token that has left is copied upward, and the blocks above make its keys and values of it, which
    later tokens meet there. No block is run that no token of the call needs.

    rule: who leaves where. heads: a norm and a classifier for each exit but the last, which is read by the model's own;
    None: all exits are read by the model's own. weights: of the training losses at the exits, which add up to 1; "rising"
    with the number of the exit, i / (1 + 2 + ... + L), as in CALM; "even", 1 / L, as in aligned training of the
    Depth-Adaptive Transformer; None: nothing is lost but where each token leaves. mixed: so many times in each step of
    training every token is sent to an exit by chance, any of them alike, and loses there and nowhere else; what it is read
    from is copied upward, with its gradient. None: aligned training, all tokens run past all exits. tied: all blocks have
    the parameters of one, as in the Universal Transformer, so that exits tell how often it was applied.

    choices: a `Left`. records: "leaves" (B, T), how many blocks each token ran through, 0 at padding; in training also
    "exits", the hidden states (B, T, M) after each block.
    """

    comes_last = True

    blocks: tuple[Layer, ...]
    rule: ExitRule
    heads: Head | None = None
    norm: Norm = LayerNorm()
    weights: Literal["rising", "even"] | None = "rising"
    mixed: int | None = None
    tied: bool = False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if len(self.blocks) < 2:
            yield (
                f"a depth of {len(self.blocks)} blocks has no exit before its end",
                "blocks=stack(Block((...)), times=2)",
            )
        yield from chain_problems(self.blocks, site.dim, site.dim)
        for block in self.blocks:
            behind = block.sublayers[1:] if isinstance(block, Block) else ()
            if any(isinstance(part, Attention) for part in parts_within(behind)):
                what = "a token that skips a block has no input for attention that reads what another sublayer wrote"
                yield what, "one Attention in each block, as its first sublayer"
        if self.heads is not None and self.heads.tied:
            yield f"{self.heads!r} is the same at each exit, as the model's own is", "heads=None"
        if self.tied and len(set(self.blocks)) > 1:
            yield "blocks that differ cannot have the parameters of one", "tied=False"
        yield from self.rule.misfits(len(self.blocks))
        yield from self._mixed_problems()

    def _mixed_problems(self) -> Iterator[tuple[str, str]]:
        if self.mixed is None:
            return
        if self.mixed < 1:
            yield f"a step of mixed training sends each token somewhere {self.mixed} times", "mixed=1"
        if self.weights is not None:
            yield (
                f"weights={self.weights!r} are those of exits that all tokens run past, and these are mixed",
                "weights=None",
            )
        if self.rule.compares:
            what = f"{type(self.rule).__name__} learns from all exits of one pass, and mixed training has no such pass"
            yield what, "mixed=None"

    def build(self, site: Site) -> nn.Module:
        return ExitsLayer(self, site)


class Left(NamedTuple):
    """The choices of `Exits`. after: (B, T) int64, how many blocks each token runs through; within: of the blocks."""

    after: Tensor
    within: tuple[Any, ...] | None = None


class ExitsState(NamedTuple):
    """What each block remembers, what the rule does, and tokens of which some blocks remember nothing yet."""

    blocks: tuple[Any, ...]
    rule: Any = None
    waiting: Waiting | None = None


class ExitsLayer(nn.Module):
    """The blocks as they would stand in an ordinary depth, and who leaves between them."""

    def __init__(self, spec: Exits, site: Site) -> None:
        super().__init__()
        self.spec, self.path = spec, site.path
        depth = len(spec.blocks)
        if spec.tied:
            self.blocks = nn.ModuleList([spec.blocks[0].build(site.part(0))] * depth)
        else:
            self.blocks = nn.ModuleList(block.build(site.part(i)) for i, block in enumerate(spec.blocks))
        self.rule = spec.rule.build(site.part(depth), depth)
        self.heads = nn.ModuleList(ExitHead(spec, spec.heads, site) for _ in range(depth - 1) if spec.heads)

    def forward(self, x: Tensor, call: Call, state: ExitsState | None = None, choices: Left | None = None) -> Out:
        if self.training and self.spec.mixed is not None and choices is None:
            chance = call.chance(self.path)
            return along_paths(
                self.spec.mixed,
                len(self.blocks),
                (x.shape[0], x.shape[1]),
                chance,
                lambda after: self(x, call, state, Left(after.to(x.device))),
            )
        past = state or self._nothing
        run = Run(self, x, call, choices, past)
        states = tuple(run.block(number, before) for number, before in enumerate(past.blocks))
        if not call.remember:
            return run.out(None)
        waiting = run.waiting.after(run.x, call.at, tuple(run.missed))
        return run.out(ExitsState(states, self.rule.remembers(run.kept), waiting))

    def skip(self, x: Tensor, call: Call, state: ExitsState | None = None) -> ExitsState:
        """What each block remembers of tokens that are carried past all of them."""
        past = state or self._nothing
        waiting = past.waiting or Waiting.nobody(len(self.blocks))
        parts = enumerate(zip(self.blocks, past.blocks, strict=True))
        states = tuple(skip(block, x, call, waiting.caught_up(n, block, call, before)) for n, (block, before) in parts)
        return ExitsState(states, self.rule.remembers(self.rule.begin(x, call, past.rule)))

    @property
    def _nothing(self) -> ExitsState:
        return ExitsState((None,) * len(self.blocks))

    def reader(self, number: int, read: Read) -> Read:
        """How hidden states after block `number`, from 0, are read; read: the model's own way."""
        return self.heads[number] if number < len(self.heads) else read

    def end(self, out: Out, call: Call) -> End:
        """How the model reads what this layer put out, and in training the exits before that."""
        own = call.read or unread
        read = functools.partial(self._read_marked, read=own) if self.heads else own
        paths = self.spec.mixed if self.training and self.spec.mixed is not None else 1
        leaves = out.records["leaves"][-paths:]
        stream = self._marked(out.y, leaves[0])
        if not self.training:
            return End(stream, read)
        if self.spec.mixed is not None:
            others = zip(out.records["exits"][1 - paths :], leaves[1:], strict=True) if paths > 1 else ()
            early = tuple((self._marked(x, after), read) for x, after in others)
            return End(stream, read, early, out.y.new_full((paths,), 1 / paths))
        halts, weights = self.rule.halts(out.records, call), self.weights(out.y)
        if halts is None and weights is None:
            return End(stream, read)
        exits = out.records["exits"][-len(self.blocks) : -1]
        early = tuple((x, self.reader(number, own)) for number, x in enumerate(exits))
        if weights is None:
            weights = F.pad(out.y.new_ones(1), (len(early), 0))
        return End(stream, read, early, weights, halts)

    def _marked(self, x: Tensor, after: Tensor) -> Tensor:
        """x (B, T, M) with the number of the blocks that it comes from, where exits have heads of their own."""
        return torch.cat([x, after[..., None].to(x.dtype)], -1) if self.heads else x

    def _read_marked(self, stream: Tensor, read: Read) -> Tensor:
        """Logits of hidden states that bring along, as a last number, how many blocks they come from."""
        x, after = stream[..., :-1], stream[..., -1]
        logits = read(x)
        for number, head in enumerate(self.heads):
            logits = torch.where((after == number + 1)[..., None], head(x), logits)
        return logits

    def weights(self, like: Tensor) -> Tensor | None:
        """(L,): what a loss at each exit counts."""
        depth, kind = len(self.blocks), self.spec.weights
        if kind is None:
            return None
        counts = torch.arange(1, depth + 1, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
        return counts / counts.sum() if kind == "rising" else torch.full_like(counts, 1 / depth)


class ExitHead(nn.Module):
    """A classifier of an exit's own: (..., M) to logits (..., V)."""

    def __init__(self, spec: Exits, head: Head, site: Site) -> None:
        super().__init__()
        self.norm, self.head = spec.norm.build(site), head.build(site)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(hidden), hidden.new_empty(0))  # it is not tied: no table is looked at
        return logits


class Run:
    """One pass of some tokens through the blocks, as far as each goes."""

    def __init__(self, layer: ExitsLayer, x: Tensor, call: Call, choices: Left | None, past: ExitsState) -> None:
        self.layer, self.call, self.x = layer, call, x
        self.depth, self.given = len(layer.blocks), choices
        self.after = torch.full(x.shape[:2], self.depth, device=x.device) if choices is None else choices.after
        if call.at.real is not None:
            self.after = self.after.masked_fill(~call.at.real, 0)
        self.all_stay = choices is None and call.at.real is None  # nobody has left, and there is no padding
        self.kept = layer.rule.begin(x, call, past.rule)
        self.waiting, self.missed = past.waiting or Waiting.nobody(self.depth), [False] * self.depth
        self.outs: list[Out | None] = []
        self.exits: list[Tensor] = []

    def block(self, number: int, past: Any) -> Any:
        """Take the tokens that are still here through a block; the block's state."""
        block, before, stays = self.layer.blocks[number], self.x, self.after > number
        if not self.all_stay and not stays.any():
            self._note(None)
            return self._passed_by(number, block, past)
        past = self.waiting.caught_up(number, block, self.call, past)
        within = self.given.within if self.given is not None else None
        out: Out = block(before, self.call, past, within and within[number])
        self.x = out.y if self.all_stay or stays.all() else torch.where(stays[..., None], out.y, before)
        self._note(out)
        if self.given is None and number + 1 < self.depth:
            self._ask(number, before, stays)
        return out.state

    def _passed_by(self, number: int, block: nn.Module, past: Any) -> Any:
        """The state of a block that no token of this call needs."""
        if not self.call.remember:
            return None
        if may_wait(self.call) and self.waiting.counts[number] + self.call.at.length <= MOST:
            self.missed[number] = True
            return past
        return skip(block, self.x, self.call, self.waiting.caught_up(number, block, self.call, past))

    def _note(self, out: Out | None) -> None:
        self.outs.append(out)
        if self.layer.training:
            self.exits.append(self.x)

    def _ask(self, number: int, before: Tensor, stays: Tensor) -> None:
        here = Exit(number, self.x, before, stays, self._read(number))
        leaves, self.kept = self.layer.rule.leaves(here, self.kept, self.call)
        if leaves is not None:
            self.after = torch.where(stays & leaves, number + 1, self.after)
            self.all_stay = self.all_stay and not leaves.any()

    def _read(self, number: int) -> Read:
        return self.layer.reader(number, self.call.read or unread)

    def out(self, state: ExitsState | None) -> Out:
        """Of the whole layer, given what it remembers."""
        ran = [out for out in self.outs if out is not None]
        within = tuple(None if out is None else out.choices for out in self.outs)
        records: dict[str, tuple[Tensor, ...]] = {"leaves": (self.after,)}
        told = Told()
        if self.layer.training:
            exits = tuple(self.exits)
            records["exits"] = exits
            if self.given is None:
                told = self.layer.rule.tell(exits, tuple(map(self._read, range(self.depth))), self.kept, self.call)
        return Out(
            self.x,
            state,
            add_losses(*(out.losses for out in ran), told.losses),
            Left(self.after, within if any(choice is not None for choice in within) else None),
            add_records(*(out.records for out in ran), records, told.records),
        )


def unread(hidden: Tensor) -> Tensor:
    """Instead of logits, where nobody says how they are made."""
    raise ValueError("an exit is read as the model's end is, and this call does not say how: give it `read`")
