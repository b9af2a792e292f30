"""Attention patterns as a picture, in the manner of the papers on sparse attention: queries down, keys across."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from formers.data.atomic import replacing
from formers.errors import FormersError
from formers.report.drawing import Square, squares
from formers.report.parts import Look

CELLS = 64  # along a side: enough for the fine structure of the published patterns, few enough to be seen
COLUMNS = 3
INCHES = 3.6


def save_picture(path: Path, title: str, looks: Sequence[Look], length: int) -> None:
    """Write a PNG with a panel for each different pattern. Raises FormersError without one, DataError if it cannot."""
    panels = [square for look in looks for square in squares(look, length, CELLS)]
    if not panels:
        raise FormersError(f"{title} has no attention part, so there is no pattern to draw; leave --plot out")
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(INCHES * columns, (INCHES + 0.7) * rows), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for square, axis in zip(panels, axes, strict=False):
        _panel(axis, square)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    with replacing(path) as (stream,):
        figure.savefig(stream, format="png", dpi=150)


def _panel(axis: Any, square: Square) -> None:
    cells, length = len(square.share), square.length
    axis.imshow(
        square.share.numpy(), cmap="Blues", vmin=0, vmax=1.3, extent=(0, length, length, 0), interpolation="nearest"
    )
    lines = [length * i / cells for i in range(cells + 1)]
    axis.set_xticks(lines, minor=True)
    axis.set_yticks(lines, minor=True)
    axis.grid(which="minor", color="white", linewidth=0.4)
    axis.tick_params(which="minor", length=0)
    axis.tick_params(labelsize=7)
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    axis.set_xlabel("key", fontsize=8)
    axis.set_ylabel("query", fontsize=8)
    heading = "\n".join(textwrap.wrap(square.title, 44))
    axis.set_title(f"{heading}\n{square.scale}", fontsize=8)
