"""A small CALM that restores damaged texts: what early exits are measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from formers.bench.restoring import ASKED, HELD_OUT, Damaged, Restoring, damage, texts_of
from formers.bench.trial import Trial
from formers.data.source import Beginning, documents, standard_library
from formers.exits.calibration import Calibration, Promise, Writings, walk_down
from formers.family import make
from formers.hub.read import hold
from formers.tasks import Prepared, prepare
from formers.train import AdamW, CosineDecay, TrainSpec, load_model
from formers.train.update import Updater

NEEDS = "a text file or folder, or nothing: then the standard library's source is read"


@dataclass(frozen=True)
class Shape:
    """The model, how it learns, and what it is calibrated and tested on.

    width: bytes of a text, which are written behind as many of the damaged one. texts: to calibrate on, and as many others to
    test on. grid: steps of the threshold from 1 to 0. most: characters of text.
    """

    dim: int = 128
    depth: int = 8
    heads: int = 4
    hidden: int = 256
    width: int = 64
    batch: int = 8
    steps: int = 1200
    rate: float = 3e-3
    most: int = 1 << 23
    texts: int = 600
    grid: int = 50
    promise: Promise = Promise(risk=0.02, confidence=0.95)

    def spec(self, vocab: int) -> Any:
        size = {"dim": self.dim, "depth": self.depth, "heads": self.heads, "hidden": self.hidden}
        return make("calm", vocab=vocab, dropout=0.0, **size)

    def prepared(self, trial: Trial) -> Prepared:
        """What is learned from, as bytes, in the case's folder."""
        texts = standard_library() if trial.data is None else documents(trial.require_data())
        return prepare(Beginning(texts, self.most), trial.keep("text"), tokenizer="bytes", held_out=0.1)

    def model(self, trial: Trial, text: Prepared) -> Any:
        """The model, trained now or found where an earlier run left it."""
        spec = self.spec(text.tokenizer.vocab)
        folder = trial.keep(f"calm-restoring-{self.dim}-{self.depth}-{self.hidden}-{self.steps}")
        if (folder / "spec.json").is_file():
            return load_model(folder)
        with trial.progress(f"training for {self.steps} steps", self.steps) as tick:
            model = self._trained(spec, text, tick)
        hold(folder, model, text.tokenizer, {})
        return model

    def _trained(self, spec: Any, text: Prepared, tick: Callable[[], None]) -> Any:
        schedule = CosineDecay(warm_up=self.steps // 20, floor=0.05)
        training = TrainSpec(self.steps, self.batch, 2 * self.width - 1, optimizer=AdamW(self.rate), schedule=schedule)
        torch.manual_seed(training.seed)
        model = spec.build().train()
        task = Restoring(text, self.width, training)
        update = Updater(model, task, training, training.optimizer.build(model), torch.device("cpu"))
        for step in range(1, self.steps + 1):
            update(step)
            tick()
        return model.eval()

    def held_out(self, text: Prepared) -> tuple[Damaged, Damaged]:
        """Texts to calibrate on and texts to test on, of what was held out; none meets another."""
        whole = texts_of(text.held_out.tokens, self.width)
        drawn = whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[: 2 * self.texts]]
        given, half = damage(drawn, ASKED, HELD_OUT).given, len(drawn) // 2
        return Damaged(given[:half], drawn[:half]), Damaged(given[half:], drawn[half:])

    def writings(self, model: Any, texts: Damaged) -> Writings:
        """What the model makes of damaged texts, in full and with any threshold."""
        return Writings(model, texts.given.tolist(), self.width)

    def calibrated(self, trial: Trial, model: Any, texts: Damaged) -> Calibration:
        """By what the full model writes."""
        writings = self.writings(model, texts)
        thresholds = [1 - step / self.grid for step in range(self.grid + 1)]
        with trial.progress("calibrating", len(thresholds)) as tick:
            return walk_down(writings.at, thresholds, self.promise, lambda done: tick())


TINY = Shape(
    dim=16,
    depth=2,
    heads=2,
    hidden=16,
    width=4,
    batch=2,
    steps=2,
    most=1 << 16,
    texts=40,
    grid=2,
    promise=Promise(risk=0.2, confidence=0.9),
)
