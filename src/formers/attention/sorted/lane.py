"""One round of one head, laid out in slots: what its chunks hold, and the scores of a piece of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.sorted.charge import BAR, Sides, bar_far, bar_later, bar_unlike, charge_same
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.plan import Rules

# Scores worked on at a time: on a CPU as many as its cache holds; a GPU wants more.
PIECE = {"cpu": 1 << 18}
LARGE_PIECE = 1 << 24
LOG2E = math.log2(math.e)


@dataclass(frozen=True)
class Meeting:
    """How the pairs of a whole attention meet: by the plan's rules, by the pattern, and in the score.

    causal: no key after its query. self_bias: added where a token meets itself. scale: of the scores. drop: which
    weights are dropped; None: none.
    """

    rules: Rules
    causal: bool
    self_bias: float
    scale: float
    drop: Drop | None = None


@dataclass(frozen=True)
class Head:
    """One head of one row: q, k (S, D), v (S, E); order, slot and bucket (R, S); pos (S,) float; real (S,) or None;
    words (S,), what dropout goes by, or None."""

    q: Tensor
    k: Tensor
    v: Tensor
    order: Tensor
    slot: Tensor
    bucket: Tensor
    pos: Tensor
    real: Tensor | None
    words: Tensor | None


class Room:
    """Tensors that are used again for every lane: fresh memory costs more than the work that is done in it."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape with anything in it; the one of that name that was taken before is lost."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.numel() < size:
            self._kept[name] = kept = self._like.new_empty(size)
        return kept[:size].view(shape)

    def gather(self, name: str, rows: Tensor, index: Tensor) -> Tensor:
        """rows (S, D) at index (n,): (n, D)."""
        return torch.index_select(rows, 0, index, out=self.take(name, len(index), rows.shape[1]))


class Lane:
    """Queries in the slots of their chunks, (N * c, D), and keys with those of the neighbouring chunks, for round r.

    Scores are kept in base 2, whose exponential a CPU takes far faster where it underflows.
    """

    def __init__(self, head: Head, r: int, meeting: Meeting, room: Room) -> None:
        self.head, self.r, self.meeting, self.room = head, r, meeting, room
        rules, length = meeting.rules, head.q.shape[0]
        self.count = -(-length // rules.chunk)
        self.rows, self.columns = self._indices()
        self._bar = torch.where(self.columns < 0, BAR, 0.0).to(head.q.dtype)
        self.rows, self.columns = self.rows.clamp_(min=0), self.columns.clamp_(min=0)
        if head.real is not None:
            self._bar = self._bar.masked_fill(~head.real[self.columns], BAR)
        self.q = room.gather("q", head.q, self.rows).mul_(meeting.scale * LOG2E)
        self.k = room.gather("k", head.k, self.columns)
        self.wide = (1 + rules.before + rules.after) * rules.chunk
        self._whole = head.real is None and length % rules.chunk == 0
        self._known = self._facts()

    def _indices(self) -> tuple[Tensor, Tensor]:
        """The token of each slot of the queries and of the keys; -1 is nothing."""
        rules, order = self.meeting.rules, self.head.order
        ahead, behind = rules.before * rules.chunk, rules.after * rules.chunk
        own = F.pad(order[self.r].long(), (0, self.count * rules.chunk - order.shape[1]), value=-1)
        if rules.wrap:
            rounds = order.shape[0]
            padded = F.pad(order.long(), (0, len(own) - order.shape[1]), value=-1)
            first, last = padded[(self.r - 1) % rounds][-ahead or len(own) :], padded[(self.r + 1) % rounds][:behind]
            own_keys = F.pad(torch.cat([first, own, last]), (ahead - len(first), behind - len(last)), value=-1)
            return own, own_keys
        return own, F.pad(own, (ahead, behind), value=-1)

    def _facts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Numbers that the rules compare, for queries and keys: (N * c,) and (all slots of keys,)."""
        rules, head = self.meeting.rules, self.head
        facts = {"pos": head.pos}
        rounds = [*range(self.r if rules.once else 0), self.r]
        for r in rounds:
            if r < self.r:
                facts[f"chunk {r}"] = (head.slot[r] // rules.chunk).to(head.pos.dtype)
            if rules.reach:
                facts[f"slot {r}"] = head.slot[r].to(head.pos.dtype)
            if rules.same:
                facts[f"bucket {r}"] = head.bucket[r].to(head.pos.dtype)
        return {name: (fact[self.rows], fact[self.columns]) for name, fact in facts.items()}

    def pieces(self) -> Iterator[slice]:
        """Chunks that are worked on at a time."""
        size = PIECE.get(self.q.device.type, LARGE_PIECE)
        step = max(1, size // (self.meeting.rules.chunk * self.wide))
        return (slice(n, min(n + step, self.count)) for n in range(0, self.count, step))

    def chunks(self, rows: Tensor, piece: slice) -> Tensor:
        """(N * c, D) -> (n, c, D)."""
        return rows.unflatten(0, (-1, self.meeting.rules.chunk))[piece]

    def windows(self, columns: Tensor, piece: slice) -> Tensor:
        """(all slots of keys, D) -> (n, C, D): what each chunk of the piece meets. A view; windows overlap."""
        chunk, width = self.meeting.rules.chunk, columns.shape[1]
        return columns.as_strided(
            (piece.stop - piece.start, self.wide, width),
            (chunk * width, width, 1),
            columns.storage_offset() + piece.start * chunk * width,
        )

    def scores(self, piece: slice, out: Tensor, scratch: tuple[Tensor, Tensor]) -> Tensor:
        """(n, c, C): scaled and biased, in base 2, and pushed below BARRED where a pair does not meet."""
        rules, meeting, spare = self.meeting.rules, self.meeting, scratch[0]
        torch.bmm(self.chunks(self.q, piece), self.windows(self.k, piece).mT, out=out)
        if not self._whole or self._at_edge(piece):
            out.add_(self.windows(self._bar[:, None], piece).mT)
        at = self._sides("pos", piece)
        if meeting.causal:
            bar_later(out, at, spare)
        if meeting.self_bias:
            self._charge_self(out, at, spare)
        if rules.reach:
            bar_far(out, self._sides(f"slot {self.r}", piece), rules.reach, spare)
        if rules.same:
            bar_unlike(out, self._sides(f"bucket {self.r}", piece), spare)
        if rules.once:
            for earlier in range(self.r):
                self._bar_met(out, earlier, piece, scratch)
        return out

    def drop(self, weights: Tensor, piece: slice) -> Tensor:
        """Weights (n, c, C) of a piece without those that are dropped, in place."""
        if self.meeting.drop is None or self.head.words is None:
            return weights
        queries = self.chunks(self.head.words[self.rows][:, None], piece)
        keys = self.windows(self.head.words[self.columns][:, None], piece).mT
        return self.meeting.drop.apply(weights, queries, keys)

    def _at_edge(self, piece: slice) -> bool:
        rules = self.meeting.rules
        return piece.start < rules.before or piece.stop + rules.after > self.count

    def _charge_self(self, out: Tensor, at: Sides, spare: Tensor) -> None:
        """Without wrapping, a token meets itself in its own slot and nowhere else."""
        rules = self.meeting.rules
        if rules.wrap:
            charge_same(out, at, self.meeting.self_bias * LOG2E, spare)
        else:
            own = out[:, :, rules.before * rules.chunk : (rules.before + 1) * rules.chunk]
            own.diagonal(dim1=1, dim2=2).add_(self.meeting.self_bias * LOG2E)

    def _bar_met(self, out: Tensor, earlier: int, piece: slice, scratch: tuple[Tensor, Tensor]) -> None:
        """Bar pairs that met in an earlier round: their chunks were neighbours there, and they kept the rules."""
        rules, (met, spare) = self.meeting.rules, scratch
        chunks = self._sides(f"chunk {earlier}", piece)
        torch.sub(chunks.q, chunks.k, out=met)
        half = (rules.before + rules.after) / 2
        met.sub_((rules.before - rules.after) / 2).abs_().neg_().add_(half + 1).clamp_(0, 1)
        if rules.reach:
            slots = self._sides(f"slot {earlier}", piece)
            torch.sub(slots.k, slots.q, out=spare)
            met.mul_(spare.abs_().neg_().add_(rules.reach).clamp_(0, 1))
        if rules.same:
            buckets = self._sides(f"bucket {earlier}", piece)
            torch.sub(buckets.k, buckets.q, out=spare)
            met.mul_(spare.abs_().neg_().add_(1).clamp_(0, 1))
        out.add_(met, alpha=BAR)

    def _sides(self, fact: str, piece: slice) -> Sides:
        q, k = self._known[fact]
        return Sides(self.chunks(q[:, None], piece), self.windows(k[:, None], piece).mT)
