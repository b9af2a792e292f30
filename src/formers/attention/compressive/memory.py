"""Compressive memory: what leaves the memory of recent tokens is compressed. Rae et al. 2019, arXiv:1911.05507."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from formers.attention.compressive.compression import ConvCompression, SegmentCompression
from formers.attention.compressive.losses import AttentionReconstruction, AutoEncoding
from formers.attention.compressive.schedule import Schedule, Sizes, Turn
from formers.attention.marks import asks_for_marks
from formers.attention.pattern import Pattern
from formers.call import Call
from formers.layer_inputs import wants_gradients
from formers.memory import Memory, MemoryRule, Project, Recalled
from formers.places import Places
from formers.spec.core import Site
from formers.state import Log

if TYPE_CHECKING:
    from formers.attention.layer import Attention


class CompressiveMemory(Memory):
    """A query sees its segment, the `memory` tokens before that, and `compressed` slots before these.

    segment: tokens that share a memory, counted by position, so that nothing depends on where calls end. memory: whole
    segments. When a segment is complete, the oldest one of the memory is compressed, and the oldest slots are forgotten.
    Slots stand one step apart, like tokens, and are placed anew before each segment.
    loss: trains the compression and nothing else, as losses["compression"]: "attention", that a segment reads the same from
    the slots as from what they are made of, by content alone; "autoencoding", that a transposed convolution can make that
    again. Each is the mean square over all numbers, and over the segments that are compressed in the call. None: what the
    model's own loss teaches, if calls span several segments or stored memories are not detached (`formers.state.detach`).
    """

    carries: ClassVar[bool] = True

    segment: int = 512
    memory: int = 512
    compressed: int = 512
    compression: SegmentCompression = ConvCompression()
    loss: Literal["attention", "autoencoding"] | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        size, rate = self.segment, self.compression.rate
        if not site.causal:
            what = "a memory of earlier segments belongs to a decoder: an encoder sees its input at once"
            yield what, "memory=KeepAll()"
        if size < 1:
            yield f"segments of {size} tokens hold nothing", "segment=512"
        elif rate > 0:
            yield from self._size_problems(size, rate)
        if self.loss is not None and not self.compression.learns:
            what = f"{self.compression!r} has no parameters, so there is nothing for the loss {self.loss!r} to train"
            yield what, "loss=None"

    def _size_problems(self, size: int, rate: int) -> Iterator[tuple[str, str]]:
        if self.memory < size or self.memory % size:
            what = f"a memory of {self.memory} tokens is not one or more whole segments of {size}"
            yield what, f"memory={max(1, round(self.memory / size)) * size}"
        if size % rate:
            what = f"a segment of {size} tokens is not compressed evenly where {rate} become one"
            yield what, f"segment={-(-size // rate) * rate}"
        elif self.compressed < size // rate:
            what = f"a compressed memory of {self.compressed} slots cannot hold the {size // rate} of one segment"
            yield what, f"compressed={size // rate}"

    def problems_with(self, attention: "Attention", site: Site) -> Iterator[tuple[str, str]]:
        if attention.select is not None:
            what = f"{attention.select!r} plans for keys that stay, and slots are placed anew in every segment"
            yield what, "select=None"
        if not attention.projection.across:
            yield f"{attention.projection!r} cannot make keys of slots that follow no token", "projection=Dense()"
        if attention.pattern is not None and asks_for_marks(attention.pattern):
            yield f"{attention.pattern!r} goes by marks, and slots have none", "pattern=Causal()"

    def remembering(self, memory: int) -> "CompressiveMemory":
        """The same with more or fewer tokens before the slots: see `formers.carried.remembering`."""
        return CompressiveMemory(self.segment, memory, self.compressed, self.compression, self.loss)

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.segment, self.memory, self.compressed, self.compression.rate)

    def shows(self, pattern: Pattern) -> Pattern:
        return pattern & self.sizes.shown

    def build(self, site: Site, pattern: Pattern) -> MemoryRule:
        return CompressiveRule(self, site, pattern)


class Queues(NamedTuple):
    """slots (B, compressed, M), the latest last; inputs of attention (B, 1, n, M), and where their tokens stand.

    Inputs and not keys: the compression acts on them, and keys are made of them by today's weights. k (B, K, S, D) and
    v (B, K, S, E), of the slots in use and of the inputs: kept where nothing is trained, until the segment ends.
    """

    slots: Tensor
    inputs: Log
    places: Places
    k: Log | None = None
    v: Log | None = None


class CompressiveRule(MemoryRule):
    def __init__(self, spec: CompressiveMemory, site: Site, pattern: Pattern) -> None:
        super().__init__()
        self.sizes, self.pattern = spec.sizes, pattern
        self.compress = spec.compression.build(site)
        self.loss: AutoEncoding | AttentionReconstruction | None = None
        if spec.loss == "autoencoding":
            self.loss = AutoEncoding(spec.compression.rate, site.dim)
        elif spec.loss == "attention":
            self.loss = AttentionReconstruction()

    def forward(self, x: Tensor, call: Call, past: tuple[object, ...] | None, project: Project) -> Recalled:
        old = None if past is None else Queues(*past)  # type: ignore[arg-type]
        schedule = self._schedule(call, old)
        inputs = Log(x[:, None]) if old is None else old.inputs.extend(x[:, None])
        slots = x.new_zeros(len(x), self.sizes.compressed, x.shape[-1]) if old is None else old.slots
        met, slots, losses = self._turned(slots, inputs.view[:, 0], schedule, project)
        learns = self.training or slots.requires_grad or wants_gradients(x, project)
        if old is not None and old.k is not None and old.v is not None and schedule.extends and not learns:
            new_k, new_v = project(x, call.at)
            k, v = old.k.extend(new_k), old.v.extend(new_v)
        else:
            k, v = (Log(t) for t in project(torch.cat([*met, inputs.view[:, 0]], 1), schedule.places))
        if not call.remember:
            return Recalled(k.view, v.view, schedule.places, None, losses)
        kept = (None, None) if learns else (schedule.lasting(k), schedule.lasting(v))
        state = Queues(slots, inputs.last(schedule.kept.length), schedule.kept, *kept)
        return Recalled(k.view, v.view, schedule.places, state, losses)

    def _schedule(self, call: Call, old: Queues | None) -> Schedule:
        if old is None and call.at.bounds[0] > 0:
            raise ValueError(
                f"compressive memory has no state of the {call.at.bounds[0]} tokens before these: give it the state of "
                "the call that saw them"
            )
        places = None if old is None else old.places
        key = ("compressive memory", self.sizes, places, call.at)
        schedule: Schedule = call.memo.once(key, lambda: Schedule(self.sizes, places, call.at))
        return schedule

    def _turned(
        self, slots: Tensor, tokens: Tensor, schedule: Schedule, project: Project
    ) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """The slots that each segment of the call meets, those that are left, and what compressing has lost."""
        met, losses = [], []
        for turn in schedule.turns:
            met.append(slots[:, slots.shape[1] - turn.width :])
            if turn.leaving is None or turn.heard is None:
                continue
            leaving, heard = turn.leaving.of(tokens), turn.heard.of(tokens)
            use = self._use(slots, tokens, heard, turn, schedule, project) if self.compress.by_use else None
            new = self.compress(leaving, use)
            if self.training and self.loss is not None:
                losses.append((self.loss(self.compress, leaving, heard, project), turn.ends))
            moved = torch.cat([slots, new], 1)[:, new.shape[1] :]
            slots = torch.where(turn.ends[..., None], moved, slots)
        return met, slots, _mean(losses)

    def _use(
        self, slots: Tensor, tokens: Tensor, heard: Tensor, turn: Turn, schedule: Schedule, project: Project
    ) -> Tensor:
        """The mean attention (B, segment) that each token which leaves got from those of the segment that ends."""
        recent, to, at = schedule.around(turn)
        oldest = slice(self.sizes.compressed, self.sizes.compressed + self.sizes.segment)
        with torch.no_grad():
            k, _ = project(torch.cat([slots, recent.of(tokens)], 1), to)
            return project.weights(heard, at, k, to, self.pattern)[..., oldest].mean((1, 2))


def _mean(losses: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The mean of losses (B,) each over the rows (1 or B, 1) that they hold of."""
    if not losses:
        return {}
    each = torch.stack([loss for loss, _ in losses])
    counts = torch.stack([rows[:, 0].expand(len(loss)) for loss, rows in losses])
    return {"compression": each.masked_fill(~counts, 0).sum() / counts.sum()}
