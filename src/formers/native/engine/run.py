"""Running a program: streams that read tokens, and are written on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from formers.errors import FormersError
from formers.native.engine.library import engine, fastest
from formers.native.engine.profile import Spent, spent_by
from formers.native.engine.program import Program
from formers.native.engine.weights import TYPES, Packed

if TYPE_CHECKING:
    from formers.decode.sampling import Sampling

Numbers = Sequence[int] | np.ndarray
KEEPS = ("fixed", "growing", "rolling", "given")  # in the order of `Keep` in source/op.h


class Engine:
    """A program, checked and ready; it never changes, and any number of sessions may run it.

    kernel: 'amx', 'vnni', 'avx512', 'avx2' or 'plain'; the fastest that the machine runs if None. Raises FormersError
    where there is no compiled engine, where the machine does not run the kernel, and where the program is not sound.
    """

    def __init__(self, program: Program, kernel: str | None = None) -> None:
        self.program, self.kernel = program, kernel or fastest()
        if not engine().runs_here(self.kernel):
            raise FormersError(f"this machine does not run the kernel {self.kernel!r}; its fastest is {fastest()!r}")
        packed = [matrix for matrix in program.matrices if isinstance(matrix, Packed)]
        if len(packed) < len(program.matrices):
            raise FormersError("the weights of this program are not packed yet: take program.packed()")
        with _in_words():
            self._native = engine().Program(
                vocab=program.vocab,
                length=program.length or 0,
                logits=program.logits,
                widths=program.widths,
                caches=[(KEEPS.index(cache.keep), *cache[1:-1], TYPES.index(cache.type)) for cache in program.caches],
                ops=[op[:-1] for op in program.ops],
                matrices=[(m.data, m.columns, TYPES.index(m.type), m.group) for m in packed],
                vectors=list(program.vectors),
            )

    def session(self, streams: int = 1, *, threads: int | None = None, room: int | None = None) -> "Session":
        """Streams to write, all of them empty. threads: PyTorch's number if None. room: the most tokens that a stream may
        have; None: any number."""
        with _in_words():
            count = torch.get_num_threads() if threads is None else threads
            made = engine().Session(self._native, kernel=self.kernel, threads=count, streams=streams, room=room or 0)
        return Session(self, made, streams)


class Session:
    """Some streams, each with its own past. Methods may be called from several threads, one after another."""

    def __init__(self, of: Engine, native: Any, streams: int) -> None:
        self.engine, self.streams, self._native = of, streams, native

    def read(self, tokens: Numbers, stream: int = 0) -> np.ndarray:
        """Read tokens behind a stream: the logits (V,) of the one after them.

        Raises FormersError, here as in the other methods, for tokens or streams that there are not, and where there is
        no position or no room left; then nothing has been read.
        """
        wanted = np.zeros(len(tokens), bool)
        wanted[-1:] = True
        logits = self.step(tokens, [stream] * len(tokens), wanted)
        if not len(logits):
            raise FormersError("there are no tokens to read; give at least one")
        first: np.ndarray = logits[0]
        return first

    def step(
        self, tokens: Numbers, streams: Numbers | None = None, wanted: Sequence[bool] | np.ndarray | None = None
    ) -> np.ndarray:
        """Read token i behind stream streams[i] (i if None); those of one stream stand together, in order.

        Returns the logits (N, V) behind the tokens that are wanted; None: all.
        """
        of = np.arange(len(tokens)) if streams is None else streams
        which = np.ones(len(tokens), bool) if wanted is None else wanted
        with _in_words():
            logits: np.ndarray = self._native.step(_whole(tokens), _whole(of), np.ascontiguousarray(which, bool))
        return logits

    def write(
        self,
        tokens: Numbers,
        streams: Numbers | None = None,
        *,
        count: int,
        stops: Sequence[int] = (),
        sampling: "Sampling | None" = None,
        seeds: Sequence[int] = (),
        drawn: int = 0,
    ) -> list[list[int]]:
        """Read tokens as `step` does, and write `count` more behind each of their streams, or up to and with the first of
        `stops`: a list for each stream, in the order in which they stand there. The last one has not been read.

        sampling: how they are chosen; None: always the likeliest. What it asks of earlier tokens, it asks of all that a
        stream has read. seeds: one for each stream; its first token is drawn by number `drawn` of its seed.
        """
        of = np.arange(len(tokens)) if streams is None else streams
        with _in_words():
            written: list[list[int]] = self._native.write(
                _whole(tokens),
                _whole(of),
                count=count,
                stops=list(stops),
                sampling=_numbers(sampling),
                seeds=list(seeds),
                drawn=drawn,
            )
        return written

    def give(self, cache: int, stream: int, data: np.ndarray) -> None:
        """Hand an encoder's keys or values (heads, tokens, width) to a "given" cache of a stream that has not begun."""
        with _in_words():
            self._native.give(cache, stream, np.ascontiguousarray(data, np.float32))

    def precede(self, stream: int, vectors: np.ndarray) -> None:
        """What a stream begins with before its first token, (tokens, width): an encoder's output, where the program is
        entered by it."""
        with _in_words():
            self._native.precede(stream, np.ascontiguousarray(vectors, np.float32))

    def reset(self, stream: int) -> None:
        """Begin this stream anew."""
        with _in_words():
            self._native.reset(stream)

    def length(self, stream: int = 0) -> int:
        """How many tokens this stream has read."""
        with _in_words():
            length: int = self._native.length(stream)
        return length

    @contextmanager
    def profiled(self) -> Iterator[list[Spent]]:
        """The list is filled behind the `with`: what each operation took of all calls in it."""
        spent: list[Spent] = []
        self._native.profile(True)
        try:
            yield spent
        finally:
            spent += spent_by(self.engine.program, self._native.seconds())
            self._native.profile(False)

    @property
    def cache_bytes(self) -> int:
        """The memory of all that the streams keep."""
        count: int = self._native.cache_bytes()
        return count


def _numbers(sampling: "Sampling | None") -> tuple[float, int, float, float, float]:
    """In the order of `Sampling` in source/sampling.h; what is left out is the number that changes nothing."""
    if sampling is None:
        return 0.0, 0, 1.0, 0.0, 1.0
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    return sampling.temperature, sampling.top_k or 0, top_p, sampling.min_p or 0.0, sampling.repetition_penalty


def _whole(numbers: Numbers) -> np.ndarray:
    array = np.asarray(numbers)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise FormersError(f"tokens and streams are flat lists of whole numbers, not {array.dtype} {array.shape}")
    return np.ascontiguousarray(array, np.int64)


@contextmanager
def _in_words() -> Iterator[None]:
    """What the compiled engine refuses, as FormersError."""
    try:
        yield
    except MemoryError as error:
        raise FormersError("there is not enough memory for what the native engine keeps of its streams") from error
    except (TypeError, OverflowError) as error:
        raise FormersError(f"the native engine cannot take this: {str(error).splitlines()[0]}") from error
    except FormersError:
        raise
    except ValueError as error:
        raise FormersError(str(error)) from error


def bandwidth(size: int, threads: int | None = None) -> float:
    """Bytes a second that a plain read of `size` bytes of memory gets, through the engine's own threads."""
    with _in_words():
        measured: float = engine().bandwidth(size, torch.get_num_threads() if threads is None else threads)
    return measured
