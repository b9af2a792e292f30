"""How processes meet, and how they end: all of them, with one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from formers.distributed.environment import MEND, Told, told
from formers.errors import FormersError

PATIENCE = timedelta(seconds=120)  # that all processes may take to come
LONGEST = timedelta(minutes=30)  # that one may wait for another afterwards: an evaluation, say, or a checkpoint
ERROR = "error"


class DistributedError(FormersError):
    """Processes that did not meet, or that ended while others waited for them."""


class World:
    """Processes that have met. store: what they can leave each other, which outlives all but the one that serves it."""

    def __init__(self, at: Told, store: Any) -> None:
        self.at, self._store = at, store

    @property
    def first(self) -> bool:
        return self.at.rank == 0

    def tells(self, message: str) -> bool:
        """Whether this process is the one to say what went wrong: the first to whom something did."""
        mine = f"{self.at.rank}: {message}"
        try:
            said: bytes = self._store.compare_set(ERROR, "", mine)
        except RuntimeError:  # who served the store has gone, and has said why
            return self.first
        return said.decode() == mine

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """A block that the first process goes through alone, and then all others: these find what it has made."""
        if not self.first:
            distributed.barrier()
        yield
        if self.first:
            distributed.barrier()


@contextmanager
def joined(patience: timedelta = PATIENCE) -> Iterator[World | None]:
    """Meet the other processes that the environment tells of; None: there are none.

    Whatever goes wrong in one process ends all: one raises what the user is to read, the others exit with 1 in silence.
    Raises DistributedError where they do not meet in time, or one of them was ended from outside.
    """
    at = told()
    if at is None:
        yield None
        return
    world = _meet(at, patience)
    try:
        yield world
    except FormersError as error:
        if world.tells(str(error)):
            raise
        raise SystemExit(1) from error
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        message = f"process {at.rank} of {at.size} waited for another that has ended; resume the run to go on"
        if world.tells(message):
            raise DistributedError(message) from error
        raise SystemExit(1) from error
    distributed.barrier()
    distributed.destroy_process_group()


def _meet(at: Told, patience: timedelta) -> World:
    """Meet at the store first, where waiting can be short, and then connect each to each."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        served, rank, size = next(rendezvous("env://", timeout=patience))
        # a store outlives the processes that torchrun starts anew, and still says where the earlier ones were
        store = PrefixStore(f"attempt-{at.attempt}", served)
        store.set(f"here/{rank}", "yes")
        store.wait([f"here/{other}" for other in range(size)], patience)
        store.set_timeout(LONGEST)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST)
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"process {at.rank} has waited {patience.seconds} s at {at.address}:{at.port} for {at.size} processes to "
            f"meet, in vain: {_first_line(error)}; {MEND}"
        ) from error
    return World(at, store)


def _is_of_others(error: RuntimeError) -> bool:
    """Whether it is what a collective raises when another process has gone. Gloo has no exception of its own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:120]
