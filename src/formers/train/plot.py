"""The loss of a run as a picture."""

from pathlib import Path

from formers.errors import CheckpointError
from formers.train.metrics import Row, read_metrics

# Points of the training curve, each the mean of its share of the steps: more only makes it hairy.
POINTS = 400
# What evaluations call the loss, and what it is called on the axis.
LOSSES = {"nats": "nats per token", "nats_per_action": "nats per action", "squared_error": "squared error"}


def plot_loss(metrics: Path, picture: Path) -> None:
    """Draw training and held-out loss over the steps. Raises CheckpointError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, losses = _thinned([row for row in rows if row["kind"] == "train"])
    axes.plot(steps, losses, linewidth=1, label="training")
    held_out = [row for row in rows if row["kind"] == "held_out"]
    loss = next((name for name in LOSSES if any(name in row for row in held_out)), "nats")
    held_out = [row for row in held_out if loss in row]
    if held_out:
        axes.plot([row["step"] for row in held_out], [row[loss] for row in held_out], marker="o", label="held out")
    axes.set_xlabel("step")
    axes.set_ylabel(LOSSES[loss])
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
