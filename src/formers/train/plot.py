"""The loss of a run as a picture."""

from pathlib import Path

from formers.errors import CheckpointError
from formers.train.metrics import Row, read_metrics

# Points of the training curve, each the mean of its share of the steps: more only makes it hairy.
POINTS = 400


def plot_loss(metrics: Path, picture: Path) -> None:
    """Draw training and held-out loss over the steps, in nats per token. Raises CheckpointError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, losses = _thinned([row for row in rows if row["kind"] == "train"])
    axes.plot(steps, losses, linewidth=1, label="training")
    held_out = [row for row in rows if row["kind"] == "held_out" and "nats" in row]
    if held_out:
        axes.plot([row["step"] for row in held_out], [row["nats"] for row in held_out], marker="o", label="held out")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    unfinished = picture.with_name(f".{picture.name}.part")
    try:
        figure.savefig(unfinished, format="png", dpi=120)
        unfinished.replace(picture)
    except OSError as error:
        raise CheckpointError(f"{picture} cannot be written: {error.strerror or error}; make room for it") from error


def _thinned(rows: list[Row]) -> tuple[list[float], list[float]]:
    """At most POINTS means of neighbouring steps: where they lie, and how high."""
    share = -(-len(rows) // POINTS) or 1
    groups = [rows[start : start + share] for start in range(0, len(rows), share)]
    return (
        [sum(row["step"] for row in group) / len(group) for group in groups],
        [sum(row["loss"] for row in group) / len(group) for group in groups],
    )
