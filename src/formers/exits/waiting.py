"""Tokens that left early, of which the blocks above have yet to make keys: many at a time cost little more than one."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from formers.call import Call, skip
from formers.places import Places
from formers.state import Log

MOST = 64  # tokens that wait for a block; then their keys are made, whether a later token needs them yet or not


class Waiting(NamedTuple):
    """hidden: (B, 1, W, M), tokens as they left; places: where they stand; counts: for each block, how many of the last of
    them it has not read. Keys made of them later are the same keys, since nothing that has left changes any more."""

    hidden: Log | None
    places: Places | None
    counts: tuple[int, ...]

    @classmethod
    def nobody(cls, blocks: int) -> "Waiting":
        """Nothing is left to do for any of so many blocks."""
        return cls(None, None, (0,) * blocks)

    def caught_up(self, number: int, block: nn.Module, call: Call, past: Any) -> Any:
        """The state of a block after all tokens that wait for it."""
        count = self.counts[number]
        if not count:
            return past
        assert self.hidden is not None
        assert self.places is not None
        key, places = ("last", count, self.places), self.places
        at = places if count == places.length else call.memo.once(key, lambda: places.last(count))
        return skip(block, self.hidden.last(count).view[:, 0], call.with_places(at), past)

    def after(self, x: Tensor, at: Places, missed: tuple[bool, ...]) -> "Waiting":
        """With the tokens of a call, x (B, T, M) as they left, behind those that wait: for the blocks that missed them.

        The others have read everything.
        """
        counts = tuple(count + at.length if late else 0 for count, late in zip(self.counts, missed, strict=True))
        longest = max(counts)
        if not longest:
            return Waiting(None, None, counts)
        new = x[:, None]
        if self.hidden is None or self.places is None or longest == at.length:
            return Waiting(Log(new), at, counts)
        return Waiting(self.hidden.extend(new).last(longest), self.places.join(at).last(longest), counts)


def may_wait(call: Call) -> bool:
    """Whether tokens of a call can be read without what came with it: later calls bring along no encoder, say."""
    return call.remember and call.encoded is None and call.retrieved is None and call.table is None
