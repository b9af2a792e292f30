"""Sparse is enough: at equal parameters and equal steps, sparse layers reach what dense ones reach. arXiv:2111.12763."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.data.source import Beginning, documents, standard_library
from formers.family import make
from formers.family.equal import as_large, size
from formers.model import Decoder
from formers.report.rows import Row, value_at_most
from formers.tasks import Causal, Prepared, evaluate_text, prepare
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater

DENSE = "dense"
# What is sparse in each row of the paper's table.
SCALING = {
    DENSE: (),
    "sparse feed-forward": ("feed_forward",),
    "sparse QKV": ("qkv",),
    "both": ("feed_forward", "qkv"),
    "both, and sparse loss": ("feed_forward", "qkv", "loss"),
}
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


TINY = Study(dim=16, depth=1, heads=2, hidden=32, block=8, rank=2, length=16, batch=2, steps=2, seeds=2, most=4096)
TITLE = "4 layers, dim 128, {} of 600 steps of 2,048 bytes each, three seeds; at equal parameters; "


@CLAIMS.case(
    "scaling",
    TITLE.format("five kinds") + "dense, and sparse by and by",
    unit="bits/byte",
    better="lower",
    needs=NEEDS,
)
def scaling(trial: Trial) -> Iterator[Row]:
    """Each kind of Scaling Transformer beside the dense one."""
    yield from compared(trial, [("scaling_transformer", name, parts) for name, parts in SCALING.items()])


@CLAIMS.case(
    "terraformer",
    TITLE.format("two kinds") + "dense, and Terraformer",
    unit="bits/byte",
    better="lower",
    needs=NEEDS,
)
def terraformer(trial: Trial) -> Iterator[Row]:
    """All of Terraformer's decoder beside the dense one: sparse, reversible, and with a recurrence."""
    dense = ("scaling_transformer", DENSE, SCALING[DENSE])
    yield from compared(trial, [dense, ("terraformer_lm", "Terraformer", SCALING["both, and sparse loss"])])


def compared(trial: Trial, kinds: Sequence[tuple[str, str, tuple[str, ...]]]) -> Iterator[Row]:
    """A row for each kind: its mean loss over the seeds, beside that of the dense one, which is the first."""
    study = TINY if trial.quick else Study()
    with TemporaryDirectory() as folder:
        texts = standard_library() if trial.data is None else documents(trial.require_data())
        text = prepare(Beginning(texts, study.most), folder, tokenizer="bytes")
        found: dict[str, list[float]] = {}
        with trial.progress("learning", len(kinds) * study.seeds * study.steps) as tick:
            for member, name, parts in kinds:
                spec = study.spec(member, parts, text.tokenizer.vocab)
                found[name] = []
                for seed in range(study.seeds):
                    tick(0, description=f"{name}, seed {seed}")
                    found[name].append(learned(study, spec, text, seed, tick))
                yield _row(trial, name, found, size(spec))


def learned(study: Study, spec: Decoder, text: Prepared, seed: int, tick: Any) -> float:
    """Bits per byte of the held-out text after training from this seed."""
    training = study.training(seed)
    torch.manual_seed(seed)
    model = spec.build().train()
    update = Updater(model, Causal(text, training), training, training.optimizer.build(model), torch.device("cpu"))
    for step in range(1, study.steps + 1):
        update(step)
        tick()
    model.eval()
    with torch.no_grad():
        score = evaluate_text(model, text.held_out, text.tokenizer, study.length, 4 * study.batch)
    return score["bits_per_byte"]


def _row(trial: Trial, name: str, found: dict[str, list[float]], parameters: int) -> Row:
    dense, losses = found[DENSE], found[name]
    told = f"{name}, {parameters:,} parameters"
    note = "by seed: " + ", ".join(f"{loss:.4f}" for loss in losses)
    if name == DENSE:
        return trial.row(told, mean(losses), note=note)
    goal = value_at_most(max(dense))
    return trial.row(told, mean(losses), mean(dense), rival="the dense model's mean", goal=goal, note=note)
