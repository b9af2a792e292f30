"""A small CALM that has learned the standard library's source: what early exits are measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from formers.bench.trial import Trial
from formers.data.source import Beginning, documents, standard_library
from formers.exits.calibration import Calibration, Promise, Writings, walk_down
from formers.family import make
from formers.hub.read import hold
from formers.tasks import Causal, Prepared, prepare
from formers.train import AdamW, CosineDecay, TrainSpec, load_model
from formers.train.update import Updater

NEEDS = "a text file or folder, or nothing: then the standard library's source is read"


@dataclass(frozen=True)
class Shape:
    """The model, how it learns, and what it is calibrated and tested on.

    texts: to calibrate on, and as many others to test on, each of `before` tokens and `behind` that are written. grid:
    steps of the threshold from 1 to 0. most: characters of text.
    """

    dim: int = 128
    depth: int = 8
    heads: int = 4
    hidden: int = 256
    length: int = 128
    batch: int = 8
    steps: int = 600
    rate: float = 3e-3
    most: int = 1 << 23
    texts: int = 400
    before: int = 64
    behind: int = 64
    grid: int = 20
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
        folder = trial.keep(f"calm-{self.dim}-{self.depth}-{self.hidden}-{self.steps}")
        if (folder / "spec.json").is_file():
            return load_model(folder)
        with trial.progress(f"training for {self.steps} steps", self.steps) as tick:
            model = self._trained(spec, text, tick)
        hold(folder, model, text.tokenizer, {})
        return model

    def _trained(self, spec: Any, text: Prepared, tick: Callable[[], None]) -> Any:
        schedule = CosineDecay(warm_up=self.steps // 20, floor=0.05)
        training = TrainSpec(self.steps, self.batch, self.length, optimizer=AdamW(self.rate), schedule=schedule)
        torch.manual_seed(training.seed)
        model = spec.build().train()
        update = Updater(model, Causal(text, training), training, training.optimizer.build(model), torch.device("cpu"))
        for step in range(1, self.steps + 1):
            update(step)
            tick()
        return model.eval()

    def prompts(self, text: Prepared) -> tuple[list[list[int]], list[list[int]]]:
        """Those to calibrate on, and those to test on, of the text that was held out; none meets another."""
        tokens, stride = torch.from_numpy(text.held_out.tokens.astype("int64")), self.before + self.behind
        starts = torch.arange(0, len(tokens) - stride, stride)
        drawn = starts[torch.randperm(len(starts), generator=torch.Generator().manual_seed(0))].tolist()
        prompts = [tokens[start : start + self.before].tolist() for start in drawn[: 2 * self.texts]]
        return prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]

    def calibrated(self, trial: Trial, model: Any, prompts: list[list[int]]) -> Calibration:
        """By what the full model writes."""
        writings = Writings(model, prompts, self.behind)
        thresholds = [1 - step / self.grid for step in range(self.grid + 1)]
        with trial.progress("calibrating", len(thresholds)) as tick:
            return walk_down(writings.at, thresholds, self.promise, lambda done: tick())


TINY = Shape(
    dim=16,
    depth=2,
    heads=2,
    hidden=16,
    length=16,
    batch=2,
    steps=2,
    most=1 << 16,
    before=4,
    behind=3,
    grid=2,
    promise=Promise(risk=0.2, confidence=0.9),
)
