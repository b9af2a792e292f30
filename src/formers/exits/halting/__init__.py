"""Rules that learn where tokens halt, the oracles that they learn from, and thresholds by search. arXiv:1910.10073."""

from formers.exits.halting.oracles import CorrectnessOracle, ExitOracle, Judged, LikelihoodOracle
from formers.exits.halting.rules import GeometricHalting, Halting, MultinomialHalting, SequenceHalting
from formers.exits.halting.search import Found, search

__all__ = [
    "CorrectnessOracle",
    "ExitOracle",
    "Found",
    "GeometricHalting",
    "Halting",
    "Judged",
    "LikelihoodOracle",
    "MultinomialHalting",
    "SequenceHalting",
    "search",
]
