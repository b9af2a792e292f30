"""Everything that a training run needs to know besides the model and the data."""

from collections.abc import Iterator
from typing import Literal

from formers.spec import Site, Spec, check
from formers.train.optimize import AdamW, Optimizer
from formers.train.schedule import CosineDecay, Schedule


class TrainSpec(Spec):
    """A training run as a value; with the model's spec and the data it determines every loss of the run.

    steps: updates of the parameters; batch: rows per update, computed in `accumulation` pieces one after the other
    (which saves memory and changes nothing else); length: tokens per row; clip: largest norm of the gradient;
    loss_chunk: targets whose logits exist at a time, None for all;
    auxiliary: weight of the losses that the model itself adds, such as load balance; evaluate_every and
    checkpoint_every: in steps, besides the last one; evaluate_tokens: about how much of the held-out data the
    evaluations before the last one read, None for all; keep: how many checkpoints stay on the disk.
    """

    steps: int
    batch: int = 16
    length: int = 256
    accumulation: int = 1
    optimizer: Optimizer = AdamW()
    schedule: Schedule = CosineDecay()
    clip: float | None = 1.0
    label_smoothing: float = 0.0
    loss_chunk: int | None = None
    auxiliary: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    evaluate_every: int = 500
    evaluate_tokens: int | None = None
    checkpoint_every: int = 500
    keep: int = 2

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for name in ("steps", "batch", "length", "accumulation", "evaluate_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)} must be at least 1", f"{name}=1"
        if self.evaluate_tokens is not None and self.evaluate_tokens < 1:
            yield f"evaluate_tokens={self.evaluate_tokens} must be at least 1, or none for all", "evaluate_tokens=none"
        if self.accumulation > 0 and self.batch % self.accumulation:
            divisor = max(n for n in range(1, self.accumulation) if self.batch % n == 0)
            yield (
                f"a batch of {self.batch} rows does not split into {self.accumulation} equal pieces",
                f"accumulation={divisor}",
            )
        if self.clip is not None and self.clip <= 0:
            yield f"clip={self.clip} would leave nothing of the gradient", "clip=none"
        if not 0 <= self.label_smoothing < 1:
            yield (
                f"label_smoothing={self.label_smoothing} is a share of probability, from 0 to below 1",
                "label_smoothing=0.1",
            )
        if self.loss_chunk is not None and self.loss_chunk < 1:
            yield f"loss_chunk={self.loss_chunk} must be at least 1, or none for all at once", "loss_chunk=none"
        if self.auxiliary < 0:
            yield f"auxiliary={self.auxiliary} would reward what the model is to avoid", "auxiliary=1.0"
        if not 0 <= self.seed < 2**32:
            yield f"seed={self.seed} must lie in [0, 2^32)", "seed=0"

    def check(self) -> None:
        """Raise one ConfigError that lists every problem, or return."""
        check(self, Site(dim=0), "train")
