"""What a call does to compressed memory, worked out of places alone: the layers of a call share it."""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.attention.compressive.remembered import Remembered, placed
from formers.attention.patterns.segments import Segments
from formers.places import Places
from formers.state import Log


class Sizes(NamedTuple):
    """segment: tokens; memory: tokens before it, whole segments; compressed: slots before these, each made of `rate`."""

    segment: int
    memory: int
    compressed: int
    rate: int

    @property
    def shown(self) -> Remembered:
        """What of all that a query sees."""
        return Remembered(Segments(self.segment, self.memory), self.compressed)


class Window(NamedTuple):
    """So many positions in a row: where their tokens are found among all, and which of them are there, (1 or B, n) each."""

    where: Tensor
    there: Tensor

    def of(self, tokens: Tensor) -> Tensor:
        """tokens (B, L, M) -> (B, n, M)."""
        where = self.where.expand(len(tokens), -1)[..., None].expand(-1, -1, tokens.shape[-1])
        return tokens.gather(1, where)


class Turn(NamedTuple):
    """One segment of each row that this call has tokens of, or has just left; rows are 1 or B.

    segment (rows, 1): its number. held (rows, 1): slots in use before it. width: the most of them that any query of this
    call sees. ends (rows, 1): whether this call ends it, so that the oldest segment of the memory is compressed.
    leaving, heard: the tokens of that oldest segment, and of this one; None where none is compressed.
    """

    segment: Tensor
    held: Tensor
    width: int
    ends: Tensor
    leaving: Window | None
    heard: Window | None


class Schedule:
    """The turns of a call in order, and the places of all keys: each turn's slots, then the tokens.

    tokens: places of all tokens at hand, old and new. kept: places of the last of them, which the next call needs.
    extends: the keys are those that the call before left as `lasting` and, behind them, those of the new tokens.
    """

    def __init__(self, sizes: Sizes, old: Places | None, at: Places) -> None:
        self.sizes = sizes
        new = bare(at)
        self.tokens = new if old is None else old.join(new)
        first = _seen(old, at.device) // sizes.segment
        seen = _seen(self.tokens, at.device)
        after = seen // sizes.segment
        last = torch.maximum((seen - 1) // sizes.segment, first)
        count = int((torch.maximum(last + 1, after) - first).max())
        self.turns = [self._turn(first + turn, last, after) for turn in range(count)]
        self.kept = self.tokens.last(self._needed(after * sizes.segment - sizes.memory))
        self.places = self._places()
        self.extends = not any(turn.width for turn in self.turns[1:])
        latest = self.turns[-1].segment
        self._lasts = bool(((latest == last) & (latest == after)).all())  # all rows are within one and the same turn

    def window(self, start: Tensor, count: int) -> Window:
        """The tokens at positions start (rows, 1), start + 1, ... of each row."""
        ahead = torch.arange(count, device=start.device)
        tokens = self.tokens
        if tokens.start is not None:
            index = start - tokens.start + ahead
            there = (index >= 0) & (index < tokens.length)
            return Window(index.clamp(0, tokens.length - 1), there)
        offset = tokens.pos - start
        inside = (offset >= 0) & (offset < count)
        inside = inside if tokens.real is None else inside & tokens.real
        target = torch.where(inside, offset, count)
        places = torch.arange(tokens.length, device=start.device).expand_as(target)
        index = target.new_zeros(len(target), count + 1).scatter(1, target, places)[:, :count]
        found = target.new_zeros(len(target), count + 1).scatter(1, target, 1)[:, :count]
        return Window(index, found.bool())

    def lasting(self, keys: Log) -> Log | None:
        """Of the keys of this call, those that the next one meets in front of its own; None: it meets others."""
        if not self._lasts:
            return None
        width, kept, count = self.turns[-1].width, self.kept.length, self.places.length
        if width + kept == count:
            return keys
        begins = count - self.tokens.length - width
        index = [torch.arange(begins, begins + width), torch.arange(count - kept, count)]
        return keys.some(torch.cat(index).to(keys.view.device))

    def slots(self, turn: Turn, width: int) -> tuple[Tensor, Tensor]:
        """Where the last `width` slots of a turn stand, one step each before the memory, and which are in use."""
        back = torch.arange(width, 0, -1, device=turn.segment.device)
        pos = (turn.segment * self.sizes.segment - self.sizes.memory - back).clamp(min=0)
        return pos, back <= turn.held

    def around(self, turn: Turn) -> tuple[Window, Places, Places]:
        """The tokens that a whole segment sees, memory first; and the places of those, with all slots before them, and of
        the segment."""
        size, memory, compressed, _ = self.sizes
        start = turn.segment * size
        recent = self.window(start - memory, memory + size)
        pos, held = self.slots(turn, compressed)
        ahead = start - memory + torch.arange(memory + size, device=start.device)
        slots = turn.segment.expand(-1, compressed)
        to = placed(side_by_side(pos, ahead.clamp(min=0)), side_by_side(held, recent.there), slots)
        return recent, to, Places(ahead[:, memory:])

    def _turn(self, segment: Tensor, last: Tensor, after: Tensor) -> Turn:
        size, memory, compressed, rate = self.sizes
        gone = (segment * size - memory).clamp(min=0)
        held = (gone // rate).clamp(max=compressed)
        width = int(torch.where(segment <= last, held, 0).max())
        ends = (segment < after) & (segment * size >= memory)
        if not bool(ends.any()):
            return Turn(segment, held, width, ends, None, None)
        return Turn(segment, held, width, ends, self.window(gone, size), self.window(segment * size, size))

    def _needed(self, start: Tensor) -> int:
        """How many of the last tokens hold all that stand at `start` (rows, 1) or later."""
        tokens = self.tokens
        if tokens.start is not None:
            return min(tokens.length, tokens.start + tokens.length - int(start))
        needed = tokens.pos >= start
        found = (needed if tokens.real is None else needed & tokens.real).any(0).nonzero()
        return tokens.length - int(found[0]) if len(found) else 0

    def _places(self) -> Places:
        """Of every turn's slots that are seen, then of the tokens."""
        tokens, slots = self.tokens, [self.slots(turn, turn.width) for turn in self.turns]
        segment = side_by_side(*(turn.segment.expand(-1, turn.width) for turn in self.turns))
        pos = side_by_side(*(each for each, _ in slots), tokens.pos)
        if tokens.real is None and all(bool(held.all()) for _, held in slots):
            return placed(pos, None, segment)
        here = torch.ones_like(tokens.pos, dtype=torch.bool) if tokens.real is None else tokens.real
        return placed(pos, side_by_side(*(held for _, held in slots), here), segment)


def side_by_side(*parts: Tensor) -> Tensor:
    """Tensors (1 or B, n) one behind another, (1 or B, all n)."""
    rows = max(len(part) for part in parts)
    return torch.cat([part.expand(rows, -1) for part in parts], 1)


def bare(places: Places) -> Places:
    """Places without marks."""
    if not places.marks:
        return places
    if places.start is not None:
        return Places.run(places.start, places.length, places.device)
    return Places(places.pos, places.real)


def _seen(places: Places | None, device: torch.device | None) -> Tensor:
    """How many tokens each row has had, (1 or B, 1)."""
    if places is None:
        return torch.zeros(1, 1, dtype=torch.int64, device=device)
    if places.start is not None:
        return torch.full((1, 1), places.start + places.length, device=device)
    real = places.pos >= 0 if places.real is None else places.real
    return places.pos.expand_as(real).masked_fill(~real, -1).amax(1, keepdim=True) + 1
