"""Mixtures of experts: Switch Transformer, Fedus et al. 2021, arXiv:2101.03961."""

from formers.experts.attention import SwitchAttention
from formers.experts.feedforward import Experts
from formers.experts.init import Truncated
from formers.experts.router import Router
from formers.experts.stacked import StackedLinear
from formers.experts.switch import Switch, SwitchLayer

__all__ = [
    "Experts",
    "Router",
    "StackedLinear",
    "Switch",
    "SwitchAttention",
    "SwitchLayer",
    "Truncated",
]
