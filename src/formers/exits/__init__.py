"""Depths that tokens may leave before their end: exits, and the rules that say who leaves where."""

from formers.exits.confidence import Confidence, Decay, LearnedConfidence, Saturation, SoftmaxResponse
from formers.exits.layer import Exits, ExitsLayer, Left
from formers.exits.rule import Exit, ExitRule, ExitRuleLayer, Read, Told

__all__ = [
    "Confidence",
    "Decay",
    "Exit",
    "ExitRule",
    "ExitRuleLayer",
    "Exits",
    "ExitsLayer",
    "LearnedConfidence",
    "Left",
    "Read",
    "Saturation",
    "SoftmaxResponse",
    "Told",
]
