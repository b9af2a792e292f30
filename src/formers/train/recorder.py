"""Numbers of a run on their way from the device to the diary and the display."""

import itertools
import math
import time
from collections.abc import Iterator, Mapping

import torch

from formers.errors import FormersError
from formers.train.checkpoint import Position
from formers.train.display import PATIENCE, Display
from formers.train.metrics import MetricsLog, Row
from formers.train.update import Update


class DivergedError(FormersError):
    """The loss or its gradient is no longer a finite number."""


class Follower:
    """Knows how far the run has come. In a process that is not the first, that is all: what is to be told, the first tells.

    The clock stands still between `pause` and `resume`: evaluations and checkpoints are no training time.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.resume()

    def resume(self) -> None:
        """Let the clock run on from where the run stands."""
        self._start = time.perf_counter() - self.position.seconds

    def pause(self) -> None:
        """Take the time."""

    def add(self, update: Update) -> None:
        """Take an update in."""
        seconds = time.perf_counter() - self._start
        self.position = Position(update.step, self.position.tokens + update.tokens, seconds)

    def say(self, text: str) -> None:
        """A line for whoever looks on."""

    def evaluating(self, done: float) -> None:
        """How much of an evaluation is done, from 0 to 1."""

    def evaluation(self, step: int, found: Mapping[str, float]) -> None:
        """What an evaluation has found."""


class Recorder(Follower):
    """Collects updates, and looks at their numbers only now and then, for the diary and the display."""

    def __init__(self, position: Position, log: MetricsLog, display: Display) -> None:
        super().__init__(position)
        self._log, self._display = log, display
        self._shown = position
        self._waiting: list[tuple[Update, Position]] = []

    def pause(self) -> None:
        """Look at all there is, and take the time. Raises DivergedError as `add` does."""
        self._look()

    def add(self, update: Update) -> None:
        """Take an update in. Raises DivergedError, perhaps a few steps late, if its numbers are not finite."""
        super().add(update)
        self._waiting.append((update, self.position))
        if self.position.seconds - self._shown.seconds >= PATIENCE:
            self._look()

    def say(self, text: str) -> None:
        self._display.say(text)

    def evaluating(self, done: float) -> None:
        self._display.evaluating(done)

    def evaluation(self, step: int, found: Mapping[str, float]) -> None:
        self._log.write([{"kind": "held_out", "step": step, **found}])
        self._display.evaluation(step, found)

    def _look(self) -> None:
        if not self._waiting:
            return
        rows = list(_rows(self._waiting))
        self._waiting = []
        finite = list(itertools.takewhile(_is_finite, rows))
        self._log.write(finite)
        if len(finite) < len(rows):
            raise _diverged(rows[len(finite)])
        seconds = max(self.position.seconds - self._shown.seconds, 1e-9)
        self._display.show(self.position.step, rows[-1]["loss"], (self.position.tokens - self._shown.tokens) / seconds)
        self._shown = self.position


def _rows(waiting: list[tuple[Update, Position]]) -> Iterator[Row]:
    """The rows of some updates, all of whose numbers are fetched from the device at once."""
    scalars = [scalar for update, _ in waiting for scalar in (update.loss, update.norm, *update.named.values())]
    numbers = iter(torch.stack([scalar.float() for scalar in scalars]).tolist())
    for update, position in waiting:
        row = {
            "kind": "train",
            "step": update.step,
            "loss": next(numbers),
            "gradient_norm": next(numbers),
            "learning_rate": update.rate,
            "tokens": position.tokens,
            "seconds": round(position.seconds, 4),
        }
        named = {name: next(numbers) for name in update.named}
        yield row | {"losses": named} if named else row


def _is_finite(row: Row) -> bool:
    return math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])


def _diverged(row: Row) -> DivergedError:
    what = "gradient" if math.isfinite(row["loss"]) else "loss"
    return DivergedError(
        f"the {what} became {row['gradient_norm' if what == 'gradient' else 'loss']} at step {row['step']}, at a learning "
        f"rate of {row['learning_rate']:.3g}; train again with a lower learning rate or a longer warm-up"
    )
