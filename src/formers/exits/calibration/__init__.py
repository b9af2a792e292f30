"""Calibration of the thresholds by which tokens leave early, with a promise: CALM, arXiv:2207.07061, section 4."""

from formers.exits.calibration.evidence import Calibration, Found, Promise, Tried, p_value, walk_down
from formers.exits.calibration.likeness import unlike
from formers.exits.calibration.threshold import at_threshold, with_threshold
from formers.exits.calibration.writing import Writings

__all__ = [
    "Calibration",
    "Found",
    "Promise",
    "Tried",
    "Writings",
    "at_threshold",
    "p_value",
    "unlike",
    "walk_down",
    "with_threshold",
]
