"""What a person sees of a run: a line that moves, and a line that stays for every evaluation."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Seconds between two looks at the numbers: each look waits for the device and redraws the display.
PATIENCE = 0.3
SHOWN = {
    "nats": "{:.4f} nats per token",
    "nats_per_action": "{:.4f} nats per action",
    "squared_error": "squared error {:.4g}",
    "bits_per_byte": "{:.4f} bits per byte",
    "bits_per_dim": "{:.4f} bits per dimension",
    "perplexity": "perplexity {:.4g}",
    "accuracy": "{:.1%} right",
    "cpc": "{:.4f} nats per hidden sentence",
    "retrieval": "{:.1%} of hidden sentences found",
    "bleu": "BLEU {:.2f}",
    "dead_units": "{:.1%} of sparse units unused",
    "mean_span": "mean span {:,.1f}",
    "saved_scores": "{:.0%} of scores saved",
}


class Display:
    """Draws on standard error unless told otherwise; where that is no terminal, only the lines that stay are written.

    It redraws when it is told something and never by itself, so it takes no time from the training.
    """

    def __init__(self, console: Console | None, done: int, steps: int) -> None:
        self.console = console or Console(stderr=True)
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns, console=self.console, auto_refresh=False, transient=True, disable=not self.console.is_terminal
        )
        self._drawn = 0.0
        self._task = self._bar.add_task("training", total=steps, completed=done, numbers="")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, loss: float, rate: float) -> None:
        """Move on to a step, with its loss and the tokens per second just now."""
        self._bar.update(self._task, completed=step, numbers=f"loss {loss:.4f}  {rate:,.0f} tokens/s", refresh=True)

    def evaluating(self, done: float) -> None:
        """Show how much of an evaluation is done, from 0 to 1."""
        now = time.perf_counter()
        if now - self._drawn >= PATIENCE:
            self._drawn = now
            self._bar.update(self._task, numbers=f"evaluating {done:.0%}", refresh=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def evaluation(self, step: int, found: Mapping[str, float]) -> None:
        """A line that stays, with the figures that a person looks at."""
        figures = [words.format(found[name]) for name, words in SHOWN.items() if name in found]
        self.say(f"step {step}, held out: " + ", ".join(figures))
