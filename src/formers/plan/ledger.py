"""Bytes that are alive: every storage from when it is first seen to when nobody holds it any more."""

import weakref

from torch import Tensor, UntypedStorage

Bytes = dict[str, int]  # by what they are for


class Ledger:
    """Counts storages by what they are for: `purpose`, until they are named otherwise.

    now: bytes alive. history: what was alive whenever it had grown, under the phase that it happened in; None keeps none.
    """

    def __init__(self) -> None:
        self.now: Bytes = {}
        self.purpose = "activations"
        self.phase: str | None = None
        self.history: list[tuple[str, Bytes]] = []
        self._purposes: dict[int, str] = {}

    def see(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, unless it is counted already."""
        storage = _storage(tensor)
        key = storage._cdata
        if key in self._purposes:
            return
        self._purposes[key] = self.purpose
        self.now[self.purpose] = self.now.get(self.purpose, 0) + storage.nbytes()
        weakref.finalize(storage, self._forget, key, storage.nbytes()).atexit = False
        if self.phase is not None:
            self.history.append((self.phase, dict(self.now)))

    def purpose_of(self, tensor: Tensor) -> str | None:
        """What a tensor is for; None: it is not counted."""
        return self._purposes.get(_storage(tensor)._cdata)

    def name(self, tensor: Tensor, purpose: str) -> None:
        """Say what a tensor that is alive is for."""
        storage = _storage(tensor)
        self.see(tensor)
        self.now[self._purposes[storage._cdata]] -= storage.nbytes()
        self._purposes[storage._cdata] = purpose
        self.now[purpose] = self.now.get(purpose, 0) + storage.nbytes()

    def _forget(self, key: int, size: int) -> None:
        self.now[self._purposes.pop(key)] -= size


def _storage(tensor: Tensor) -> UntypedStorage:
    """Of a stand-in, that of the tensor which it stands over."""
    return getattr(tensor, "meta", tensor).untyped_storage()


def highest(history: list[Bytes]) -> Bytes:
    """The entry of the largest sum."""
    return max(history, key=lambda entry: sum(entry.values()), default={})
