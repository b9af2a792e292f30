"""Models that learned the same beside one another: their losses and their speeds in one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from formers.data.atomic import replacing
from formers.train.metrics import read_metrics


class Twin(NamedTuple):
    """metrics: the file of a run. bits: per byte of the held-out text at the end. speed: tokens written a second."""

    name: str
    metrics: Path
    bits: float
    speed: float


def draw_twins(twins: Sequence[Twin], picture: Path) -> None:
    """Held-out loss over the steps, and tokens a second, of each. Raises DataError if it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    losses, speeds = figure.subplots(1, 2, width_ratios=(2, 1))
    for twin in twins:
        rows = [row for row in read_metrics(twin.metrics) if row["kind"] == "held_out"]
        label = f"{twin.name}: {twin.bits:.3f} bits per byte"
        losses.plot([row["step"] for row in rows], [row["nats"] for row in rows], marker="o", label=label)
    losses.set(xlabel="step", ylabel="nats per token of held-out text")
    losses.grid(alpha=0.3)
    losses.legend()
    _bars(speeds, twins)
    with replacing(picture) as (stream,):
        figure.savefig(stream, format="png", dpi=120)


def _bars(axes: Any, twins: Sequence[Twin]) -> None:
    bars = axes.bar([twin.name for twin in twins], [twin.speed for twin in twins], color=["C0", "C1"])
    axes.bar_label(bars, labels=[f"{twin.speed:,.0f}" for twin in twins])
    axes.set_ylabel("tokens written a second")
