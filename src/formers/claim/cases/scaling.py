"""Sparse is enough: at equal parameters and equal steps, sparse layers reach what dense ones reach. arXiv:2111.12763."""

from collections.abc import Iterator, Sequence
from statistics import mean

from formers.bench.registry import CLAIMS
from formers.bench.study import NEEDS, TINY, Study
from formers.bench.trial import Trial
from formers.family.equal import size
from formers.report.rows import Row, value_at_most

DENSE = "dense"
# What is sparse in each row of the paper's table.
SCALING = {
    DENSE: (),
    "sparse feed-forward": ("feed_forward",),
    "sparse QKV": ("qkv",),
    "both": ("feed_forward", "qkv"),
    "both, and sparse loss": ("feed_forward", "qkv", "loss"),
}


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
    with study.text(trial) as text, trial.progress("learning", len(kinds) * study.seeds * study.steps) as tick:
        found: dict[str, list[float]] = {}
        for member, name, parts in kinds:
            spec = study.spec(member, parts, text.tokenizer.vocab)
            found[name] = [study.learned(spec, text, seed, name, tick) for seed in range(study.seeds)]
            yield _row(trial, name, found, size(spec))


def _row(trial: Trial, name: str, found: dict[str, list[float]], parameters: int) -> Row:
    dense, losses = found[DENSE], found[name]
    told = f"{name}, {parameters:,} parameters"
    note = "by seed: " + ", ".join(f"{loss:.4f}" for loss in losses)
    if name == DENSE:
        return trial.row(told, mean(losses), note=note)
    goal = value_at_most(max(dense))
    return trial.row(told, mean(losses), mean(dense), rival="the dense model's mean", goal=goal, note=note)
