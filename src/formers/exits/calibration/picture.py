"""A calibration as a picture: what each threshold risks, and what it saves."""

from pathlib import Path

from formers.data.atomic import replacing
from formers.exits.calibration.evidence import Calibration

INCHES = 5.0


def save_picture(path: Path, title: str, found: Calibration, depth: int) -> None:
    """Write a PNG of two panels, risk and mean exit against the threshold. Raises DataError if it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * INCHES, INCHES), layout="constrained")
    figure.suptitle(title)
    risk, exits = figure.subplots(1, 2)
    thresholds = [tried.threshold for tried in found.tried]
    risk.plot(thresholds, [tried.risk for tried in found.tried], marker="o", markersize=3, label="mean loss")
    risk.plot(thresholds, [tried.p for tried in found.tried], "--", linewidth=1, label="p-value")
    risk.axhline(found.promise.risk, color="black", linewidth=0.8, label=f"promised risk {found.promise.risk:g}")
    exits.plot(thresholds, [tried.mean_exit for tried in found.tried], marker="o", markersize=3)
    exits.axhline(depth, color="black", linewidth=0.8, label="all blocks")
    for axis, what in ((risk, f"of {found.texts:,} texts"), (exits, "blocks of a token, mean")):
        axis.set(xlabel="threshold", ylabel=what, ylim=(0, None))
        axis.invert_xaxis()  # they are tried from the highest down
        axis.grid(linewidth=0.3)
        if found.threshold is not None:
            axis.axvline(found.threshold, color="tab:green", linewidth=1, label=f"chosen: {found.threshold:g}")
        axis.legend(fontsize=8)
    with replacing(path) as (stream,):
        figure.savefig(stream, format="png", dpi=150)
