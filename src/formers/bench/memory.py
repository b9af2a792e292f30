"""Memory of a process: how much is free, how high it has risen, and a fresh process to measure in."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from formers.errors import FormersError

GIB = 1 << 30
MIB = 1 << 20
_MEMINFO, _PROCESS = Path("/proc/meminfo"), Path("/proc/self")
_MMAP_THRESHOLD = -3  # of mallopt, from malloc.h

T = TypeVar("T")


def free_memory() -> int | None:
    """Bytes that a process can still get without swapping; None where the system does not say."""
    with contextlib.suppress(OSError, KeyError):
        return _kibibytes(_MEMINFO, "MemAvailable")
    return None


def resident() -> int:
    """Bytes of this process that are in memory now; where only the most so far is known, that."""
    with contextlib.suppress(OSError, KeyError):
        return _kibibytes(_PROCESS / "status", "VmRSS")
    return _most_so_far()


def high_water(run: Callable[[], object]) -> int:
    """The most bytes of this process that were in memory at once while `run` ran."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5", encoding="utf-8")  # makes the high-water mark what it is now
    run()
    with contextlib.suppress(OSError, KeyError):
        return _kibibytes(_PROCESS / "status", "VmHWM")
    return _most_so_far()


def give_back_at_once() -> None:
    """Have glibc return every freed tensor to the system, for as long as this process lives.

    By itself it raises the size from which it does so up to 32 MiB, and keeps what is smaller between what is still in
    use: of a stack of 8 layers that was two thirds of the peak, and grew with the number of parameters.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 17)


def _most_so_far() -> int:
    try:
        import resource
    except ImportError:
        raise FormersError("how much memory a process takes can be measured on Linux and macOS only") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _kibibytes(file: Path, name: str) -> int:
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return 1024 * int({key: value for key, _, value in lines}[name].split()[0])


def in_fresh_process(run: Callable[..., T], *given: Any, give_back: bool = True) -> T:
    """What a function at the top of a module returns in a process of its own, with as many threads as here.

    Raises FormersError if that process dies, as it does when memory runs out, or if the function raises, with its error.
    give_back: it gives freed memory back at once, so that peaks are of what is in use; but it is a quarter slower so.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    child = spawning.Process(target=_answer, args=(theirs, torch.get_num_threads(), run, given, give_back))
    child.start()
    theirs.close()
    try:
        answer, error = ours.recv()
    except EOFError:
        child.join()
        raise FormersError(_death(child.exitcode or 0)) from None
    finally:
        ours.close()
        if child.is_alive() and sys.exc_info()[0] is not None:
            child.terminate()
        child.join()
    if error is not None:
        raise FormersError(f"the process that measured this failed: {error}")
    found: T = answer
    return found


def _death(code: int) -> str:
    """Why a process has not answered. The system ends one that wants more memory than there is by SIGKILL."""
    if code >= 0:
        return f"the process that measured this ended with exit code {code}"
    name = {known.value: known.name for known in signal.Signals}.get(-code, f"signal {-code}")
    if name == "SIGKILL":
        return "the process that measured this was killed (SIGKILL): memory may have run out; try a machine with more of it"
    return f"the process that measured this crashed ({name})"


def _answer(to: Connection, threads: int, run: Callable[..., Any], given: tuple[Any, ...], give_back: bool) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if give_back:
        give_back_at_once()
    try:
        answer, error = run(*given), None
    except Exception as raised:
        answer, error = None, str(raised) if isinstance(raised, FormersError) else f"{type(raised).__name__}: {raised}"
    to.send((answer, error))
    with contextlib.suppress(EOFError):
        to.recv()  # tensors are handed over by the process that made them, which has to be there until they have come


def _end_with_parent() -> None:
    """A parent that is killed cannot end its child, which would work on for nobody, and write where the next run writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
