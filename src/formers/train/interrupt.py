"""Ctrl-C that waits for a moment at which nothing is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """While it is entered, Ctrl-C only makes `asked` true; a second one breaks in as usual.

    Outside the main thread, where signals cannot be received, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._harmless = False
        self._before: Any = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Work that changes nothing and may be broken off at once: Ctrl-C ends the block early."""
        self._harmless = True
        try:
            yield
        except KeyboardInterrupt:
            self.asked = True
        finally:
            self._harmless = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._harmless:
            raise KeyboardInterrupt
        self.asked = True
