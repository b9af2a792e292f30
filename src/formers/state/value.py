"""What a model remembers between calls, as a value: an old state stays valid when it has been extended."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from formers.places import Places


class Log:
    """A run of vectors (B, K, T, D) that can grow at its end in constant time per step, and is still a value.

    Logs that grew from one another share a buffer, each seeing its own part. Only the log that ends where the
    buffer's used part ends may write behind it; any other copies first, so two continuations never meet.
    """

    __slots__ = ("_buffer", "_start", "_stop")

    def __init__(self, data: Tensor) -> None:
        self._buffer, self._start, self._stop = _Buffer(data, data.shape[2]), 0, data.shape[2]

    @property
    def view(self) -> Tensor:
        """(B, K, T, D), not to be changed."""
        data = self._buffer.data
        if len(self) == data.shape[2]:  # a narrowed tensor costs a zeroed one and a copy on the way back
            return data
        return data.narrow(2, self._start, len(self))

    def __len__(self) -> int:
        return self._stop - self._start

    def extend(self, new: Tensor) -> "Log":
        """This log with `new` (B, K, T, D) behind it."""
        old = self._buffer.data
        if torch.is_grad_enabled() and (new.requires_grad or old.requires_grad):
            return Log(torch.cat([self.view, new], 2))
        stop = self._stop + new.shape[2]
        buffer = self._buffer if self._may_write(stop) else _Buffer.with_room(self.view, new.shape[2])
        grown = Log.__new__(Log)
        grown._buffer, grown._start = buffer, self._start if buffer is self._buffer else 0
        grown._stop = grown._start + len(self) + new.shape[2]
        buffer.data.narrow(2, grown._stop - new.shape[2], new.shape[2]).copy_(new)
        buffer.used = grown._stop
        return grown

    def last(self, count: int) -> "Log":
        """The last `count` vectors; the rest is dropped for good when the log next moves to a new buffer."""
        shorter = Log.__new__(Log)
        shorter._buffer, shorter._start, shorter._stop = self._buffer, self._stop - count, self._stop
        return shorter

    def some(self, index: Tensor) -> "Log":
        """The vectors at these indices (n,), in a buffer of their own."""
        return Log(self.view.index_select(2, index))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Log":
        return Log(change(self.view))

    @property
    def settled(self) -> bool:
        """Whether it has grown in a buffer made for it, which has no gradient and which nobody else writes to."""
        return self._buffer.made and not self._buffer.data.requires_grad

    def _may_write(self, stop: int) -> bool:
        buffer = self._buffer
        frozen = buffer.data.is_inference() and not torch.is_inference_mode_enabled()
        return buffer.used == self._stop and stop <= buffer.data.shape[2] and not frozen


class _Buffer:
    """Room for a log: everything before `used` belongs to somebody."""

    __slots__ = ("data", "made", "used")

    def __init__(self, data: Tensor, used: int, *, made: bool = False) -> None:
        self.data, self.used, self.made = data, used, made

    @classmethod
    def with_room(cls, old: Tensor, more: int) -> "_Buffer":
        batch, heads, length, width = old.shape
        room = (length + more) * 3 // 2 + 64
        data = old.new_empty(batch, heads, room, width)
        data[:, :, :length] = old
        return cls(data, length, made=True)


def tree_map(change: Callable[[Tensor], Tensor], state: Any, *, but: Callable[[Log], bool] = lambda log: False) -> Any:
    """A state of the same shape with every tensor changed; tensors have the batch as their first axis.

    Places that layers share stay shared, so that they go on sharing masks. but: of which logs nothing is to be changed.
    """
    seen: dict[int, Places] = {}

    def walk(part: Any) -> Any:
        if isinstance(part, Tensor):
            return change(part)
        if isinstance(part, Log):
            return part if but(part) else part.map(change)
        if isinstance(part, Places):
            if id(part) not in seen:
                seen[id(part)] = part.map(change)
            return seen[id(part)]
        if isinstance(part, tuple):
            items = [walk(item) for item in part]
            return type(part)(*items) if hasattr(part, "_fields") else tuple(items)
        if isinstance(part, dict):
            return {name: walk(item) for name, item in part.items()}
        return part

    return walk(state)


def select(state: Any, rows: Tensor) -> Any:
    """The state of some rows of the batch, in the order of `rows` (int64), which may repeat one."""
    return tree_map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)), state)


def detach(state: Any) -> Any:
    """The same state without its gradient: the next call does not reach back into the last one."""
    return tree_map(Tensor.detach, state, but=lambda log: log.settled)


def handed_on(state: Any) -> Any:
    """The same state for the next step of training: without its gradient, and in memory of its own, so that an update of
    the parameters does not reach it, nothing else is kept alive by it, and it lies as one that was loaded does.

    A log that is settled goes on growing where it is: it may be too large to be copied at every step.
    """
    return tree_map(
        lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format), state, but=lambda log: log.settled
    )


def tensors(state: Any) -> list[Tensor]:
    """Every tensor of a state, for counting bytes or saving."""
    found: list[Tensor] = []
    tree_map(lambda t: found.append(t) or t, state)  # type: ignore[func-returns-value]
    return found
