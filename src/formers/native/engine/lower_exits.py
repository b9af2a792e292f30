"""Rules for depths that tokens may leave before their end."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from formers.block import BlockLayer
from formers.errors import NoRuleError
from formers.exits.confidence import (
    ConfidenceLayer,
    LearnedConfidenceLayer,
    SaturationLayer,
    SoftmaxResponseLayer,
)
from formers.exits.halting.rules import GeometricHaltingLayer
from formers.exits.layer import ExitsLayer
from formers.feedforward import GLULayer, MLPLayer
from formers.native.engine.build import Builder, linear
from formers.native.engine.rules import block_rule, exit_rule, norm_rule, skip_rule
from formers.residual import PostNormRule

SHORTEST = 1e-16  # of the product of two lengths, so that nothing is divided by 0


class Exit(NamedTuple):
    """Where tokens are asked whether they leave: behind block `number`, with what it read and put out in registers."""

    layer: ExitsLayer
    number: int
    before: int
    x: int


class Sure(NamedTuple):
    """How sure each token is, in a register that may be had again; it leaves at position p if that is at least
    floor + decay exp(-rate p)."""

    register: int
    floor: float
    decay: float = 0.0
    rate: float = 0.0


@block_rule(ExitsLayer)
def _(layer: ExitsLayer, build: Builder, x: int) -> int:
    if len(layer.heads):
        raise NoRuleError("the native engine has no rule for classifiers of exits of their own: decode with PyTorch")
    last, left = len(layer.blocks) - 1, False
    before = build.register(build.width(x))
    for number, block in enumerate(layer.blocks):
        build.passed_by = number
        if left:
            with build.for_those_who_left():
                _pass_by(block, build, x)
            build.forget()  # the rows are others than those that positions were looked up for
        build.op("copy", reads=[x], writes=[before], ints=[0])
        block_rule.apply(block, build, x)
        if number < last:
            left = _leave(Exit(layer, number, before, x), build) or left
    build.passed_by = None
    if left:
        build.op("rejoin", writes=[x])
        build.forget()
    build.release(before)
    return x


def _leave(at: Exit, build: Builder) -> bool:
    """Whether anybody may leave there."""
    sure: Sure | None = exit_rule.apply(at.layer.rule, build, at)
    if sure is None:
        return False
    build.op("leave", reads=[sure.register], writes=[at.x], floats=[sure.floor, sure.decay, sure.rate])
    build.release(sure.register)
    build.forget()
    return True


def _pass_by(block: nn.Module, build: Builder, x: int) -> None:
    if type(block) is not BlockLayer:
        raise NoRuleError(f"the native engine has no rule for {type(block).__name__}, a block that tokens pass by")
    y = build.register(build.width(x))
    after = type(block.residual) is PostNormRule
    if after:
        build.op("copy", reads=[x], writes=[y], ints=[0])
    for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
        if not after:
            norm_rule.apply(norm, build, x, y)
        skip_rule.apply(sublayer, build, y)
        if after:
            norm_rule.apply(norm, build, y, y)
    build.release(y)


@skip_rule(MLPLayer, GLULayer)
def _(layer: nn.Module, build: Builder, x: int) -> None:
    """Nothing is remembered."""


def logits_at(at: Exit, build: Builder) -> int:
    """The register of the logits at an exit, read as at the end of the model."""
    assert build.read is not None  # set before any part of the depth is lowered
    y = build.register(build.width(at.x))
    logits = build.read(at.x, y)
    build.release(y)
    return logits


def demanded(rule: ConfidenceLayer, sure: Callable[[], int]) -> Sure | None:
    """How sure a token must be, of what `sure` puts in a register; None where no threshold has been set."""
    threshold, decay = rule.spec.threshold, rule.spec.decay
    if threshold is None:
        return None
    if decay is None:
        return Sure(sure(), threshold)
    return Sure(sure(), 0.9 * threshold, 0.1, decay.rate / decay.length)


@exit_rule(SoftmaxResponseLayer)
def _(rule: SoftmaxResponseLayer, build: Builder, at: Exit) -> Sure | None:
    def response() -> int:
        logits, sure = logits_at(at, build), build.register(1)
        build.op("response", reads=[logits], writes=[sure])
        build.release(logits)
        return sure

    return demanded(rule, response)


@exit_rule(SaturationLayer)
def _(rule: SaturationLayer, build: Builder, at: Exit) -> Sure | None:
    def cosine() -> int:
        sure = build.register(1)
        build.op("alike", reads=[at.x, at.before], writes=[sure], floats=[SHORTEST])
        return sure

    return demanded(rule, cosine) if at.number else None  # what the first block reads, no block has made


@exit_rule(LearnedConfidenceLayer)
def _(rule: LearnedConfidenceLayer, build: Builder, at: Exit) -> Sure | None:
    def chance() -> int:
        sure = build.register(1)
        linear(build, at.x, sure, rule.score, activation="sigmoid")
        return sure

    return demanded(rule, chance)


@exit_rule(GeometricHaltingLayer)
def _(rule: GeometricHaltingLayer, build: Builder, at: Exit) -> Sure | None:
    threshold = rule.threshold(at.number)
    if threshold is None:
        return None
    sure = build.register(1)
    linear(build, at.x, sure, rule.scores[at.number], activation="sigmoid")
    return Sure(sure, threshold)
