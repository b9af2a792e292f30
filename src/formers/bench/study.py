"""Small language models of one size that learn from the same bytes: what kinds of layers are compared by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch

from formers.bench.trial import Trial
from formers.data.source import Beginning, documents, standard_library
from formers.family import make
from formers.family.equal import as_large, size
from formers.model import Decoder
from formers.tasks import Causal, Prepared, evaluate_text, prepare
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater

NEEDS = "a text file or folder, or nothing: then the standard library's source is read"


@dataclass(frozen=True)
class Study:
    """Small models of one size, and how each learns. hidden: units of the dense one; most: characters of text."""

    dim: int = 128
    depth: int = 4
    heads: int = 4
    hidden: int = 512
    block: int = 16
    rank: int = 16
    loss_modules: int = 2
    length: int = 256
    batch: int = 8
    steps: int = 600
    seeds: int = 3
    rate: float = 2e-3
    most: int = 1 << 23

    def spec(self, member: str, sparse: tuple[str, ...], vocab: int) -> Decoder:
        """A member with these parts sparse, and as many parameters as the dense model."""

        def made(name: str, parts: tuple[str, ...], hidden: int) -> Any:
            given = {"dim": self.dim, "depth": self.depth, "heads": self.heads, "attentions": 1, "dropout": 0.0}
            given |= {"block": self.block, "rank": self.rank, "modules": self.heads, "loss_modules": self.loss_modules}
            return make(name, vocab=vocab, hidden=hidden, sparse=parts, positions="sinusoidal", **given)

        wanted = size(made("scaling_transformer", (), self.hidden))
        return as_large(lambda hidden: made(member, sparse, hidden), wanted, self.block)

    def training(self, seed: int) -> TrainSpec:
        schedule = CosineDecay(warm_up=self.steps // 20, floor=0.05)
        return TrainSpec(self.steps, self.batch, self.length, optimizer=AdamW(self.rate), schedule=schedule, seed=seed)

    @contextmanager
    def text(self, trial: Trial) -> Iterator[Prepared]:
        """What is learned from, as bytes."""
        with TemporaryDirectory() as folder:
            texts = standard_library() if trial.data is None else documents(trial.require_data())
            yield prepare(Beginning(texts, self.most), folder, tokenizer="bytes")

    def learned(self, spec: Decoder, text: Prepared, seed: int, name: str, tick: Callable[..., None]) -> float:
        """Bits per byte of the held-out text after training from this seed."""
        tick(0, description=f"{name}, seed {seed}")
        training = self.training(seed)
        torch.manual_seed(seed)
        model = spec.build().train()
        update = Updater(model, Causal(text, training), training, training.optimizer.build(model), torch.device("cpu"))
        for step in range(1, self.steps + 1):
            update(step)
            tick()
        model.eval()
        with torch.no_grad():
            score = evaluate_text(model, text.held_out, text.tokenizer, self.length, 4 * self.batch)
        return score["bits_per_byte"]


TINY = Study(dim=16, depth=1, heads=2, hidden=32, block=8, rank=2, length=16, batch=2, steps=2, seeds=2, most=4096)
