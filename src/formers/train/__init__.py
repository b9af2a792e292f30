"""Training: runs as values, exact to the last bit when they are resumed, and never half-written."""

from formers.train.loop import Outcome, train
from formers.train.optimize import Adafactor, AdamW, AdamW8bit
from formers.train.recorder import DivergedError
from formers.train.run import Run, load_model, load_run_tokenizer
from formers.train.schedule import Constant, CosineDecay, InverseSquareRoot, vanilla_peak
from formers.train.spec import TrainSpec

__all__ = [
    "Adafactor",
    "AdamW",
    "AdamW8bit",
    "Constant",
    "CosineDecay",
    "DivergedError",
    "InverseSquareRoot",
    "Outcome",
    "Run",
    "TrainSpec",
    "load_model",
    "load_run_tokenizer",
    "train",
    "vanilla_peak",
]
