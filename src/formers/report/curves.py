"""Figures against length, as a picture: some panels side by side, all axes in powers of ten."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from formers.data.atomic import replacing

INCHES = 5.0


class Curve(NamedTuple):
    """A name for the legend, whether it is ours or a rival's, what is measured and in what unit, and where."""

    name: str
    ours: bool
    what: str
    lengths: tuple[int, ...]
    values: tuple[float, ...]


def save_curves(path: Path, title: str, panels: Sequence[Sequence[Curve]]) -> None:
    """Write a PNG with these panels; each has curves of one thing. Raises DataError if it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES * len(panels), INCHES), layout="constrained")
    figure.suptitle(title)
    for curves, axis in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for curve in curves:
            style = "-" if curve.ours else "--"
            axis.plot(curve.lengths, curve.values, style, marker="o", markersize=3, label=curve.name)
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=curves[0].what)
        axis.grid(which="both", linewidth=0.3)
    axis.legend(fontsize=7)
    with replacing(path) as (stream,):
        figure.savefig(stream, format="png", dpi=150)
