"""Forks of a process that has loaded PyTorch, as processes that meet: each import would take seconds."""

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from formers.distributed import joined
from formers.errors import FormersError

LIMIT = 300  # seconds that one lot may take


def together(size: int, work: Callable[[int], object]) -> list[int]:
    """Run work(rank) in `size` processes that have met; gives their exit codes. None outlives the call.

    What a user would read is printed behind "formers:".
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.stdout.flush()
    children = [_fork(rank, size, port, work) for rank in range(size)]
    left, codes = dict(zip(children, range(size), strict=True)), [0] * size
    try:
        while left:
            child, status = os.wait()
            codes[left.pop(child)] = os.waitstatus_to_exitcode(status)
    finally:
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    return codes


def _fork(rank: int, size: int, port: int, work: Callable[[int], object]) -> int:
    child = os.fork()
    if child:
        return child
    signal.alarm(LIMIT)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    code = 1
    try:
        with joined():
            work(rank)
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    except FormersError as error:
        print(f"formers: {error}")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
