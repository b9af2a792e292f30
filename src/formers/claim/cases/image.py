"""Image Transformer: local attention in two dimensions reaches what is near in the image and far away in the sequence."""

from collections.abc import Iterator
from dataclasses import replace

from formers.attention import Attention, Causal, Local1D, Local2D
from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.canvas import Canvas
from formers.claim.row_task import TINY, RowLearner
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, BLOCK, ABOVE, BESIDE = 4, 4, 8, 4
SOLVED, UNSEEN = value_at_most(0.1), value_at_least(1.9)


@CLAIMS.case(
    "image_transformer",
    "local attention of arXiv:1802.05751 on images whose second half follows from pixels 6 rows above "
    "(12 x 12, 4 colours, 2 layers, dim 48)",
    unit="bits a pixel of the second half",
    better="lower",
)
def image_transformer(trial: Trial) -> Iterator[Row]:
    """Learns with blocks of 4 x 4 pixels that see 8 rows above them, and with blocks of a row that see the row before."""
    raster = TINY if trial.quick else RowLearner()
    side = raster.task.side
    canvas = Canvas(side, side, block=(BLOCK, BLOCK))
    blocked = replace(raster, task=replace(raster.task, order=tuple(canvas.tables().order.tolist())))
    kinds = {
        f"2D: blocks of {BLOCK} x {BLOCK}, {ABOVE} rows above and {BESIDE} columns beside": (
            blocked,
            Local2D(canvas, ABOVE, BESIDE),
            SOLVED,
        ),
        f"1D: blocks of {side}, and the {side} pixels before": (raster, Local1D(side, side), UNSEEN),
    }
    with trial.progress("", raster.steps * len(kinds)) as tick:
        for name, (learner, pattern, goal) in kinds.items():
            tick(0, name)
            model = learner.learn(Attention(HEADS, pattern=Causal() & pattern), tick)
            yield trial.row(name, learner.bits(model), goal=goal)
