"""Specs: a model as a value, checked as a whole before a single parameter exists."""

from formers.errors import ConfigError
from formers.spec.assign import assign
from formers.spec.check import check, find_problems
from formers.spec.codec import from_json, to_json
from formers.spec.core import Problem, Site, Spec
from formers.spec.diff import diff
from formers.spec.expression import parse

__all__ = [
    "ConfigError",
    "Problem",
    "Site",
    "Spec",
    "assign",
    "check",
    "diff",
    "find_problems",
    "from_json",
    "parse",
    "to_json",
]
