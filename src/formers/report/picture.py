"""Attention patterns as a picture, in the manner of the papers on sparse attention: queries down, keys across."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from formers.data.atomic import replacing
from formers.errors import FormersError
from formers.report.drawing import Square

CELLS = 64  # along a side: enough for the fine structure of the published patterns, few enough to be seen
COLUMNS = 3
INCHES = 3.6


def save_picture(path: Path, title: str, panels: Sequence[Square]) -> None:
    """Write a PNG with these panels. Raises FormersError without one, DataError if it cannot be written."""
    if not panels:
        raise FormersError(f"{title} has no attention whose pattern can be drawn without a text; leave --plot out")
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
    darkest = 1.3 * square.top  # so that grid lines and labels are seen beside it
    axis.imshow(
        square.share.numpy(), cmap="Blues", vmin=0, vmax=darkest, extent=(0, length, length, 0), interpolation="nearest"
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
    if square.names:
        spots = [place + 0.5 for place in range(length)]
        axis.set_yticks(spots, square.names, fontsize=min(7, 220 / length), family="monospace", parse_math=False)
    heading = [line for told in (square.title, square.scale) for line in textwrap.wrap(told, 44)]
    axis.set_title("\n".join(heading), fontsize=8)
