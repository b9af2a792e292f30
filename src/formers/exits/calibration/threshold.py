"""The same model with another threshold: a model of the same parameters, and a spec that says so."""

import copy
from typing import Any

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.exits.confidence import Confidence
from formers.exits.halting.rules import GeometricHalting
from formers.exits.layer import Exits, ExitsLayer
from formers.spec import Spec

Threshold = float | tuple[float, ...] | None


def with_threshold(model: Any, threshold: Threshold) -> Any:
    """The model with that threshold at its exits. It has the very parameters of the old one, which stays as it is.

    Raises ConfigError where nothing in the model leaves by a threshold of confidence.
    """
    spec = at_threshold(model.spec, threshold)
    new = copy.deepcopy(model, {id(part): part for part in (*model.parameters(), *model.buffers())})
    new.spec = spec
    if isinstance(spec, EncoderDecoder):
        new.target.spec = spec.target
    for layer in new.modules():
        if isinstance(layer, ExitsLayer) and leaves_by_confidence(layer.spec):
            layer.spec = exits_at(layer.spec, threshold)
            rule: Any = layer.rule
            rule.spec = layer.spec.rule
    return new


def at_threshold(spec: Any, threshold: Threshold) -> Any:
    """The spec of a model with that threshold at its exits, None for none. Raises ConfigError as `with_threshold`."""
    if isinstance(spec, EncoderDecoder):
        return spec.replace(target=at_threshold(spec.target, threshold))
    blocks = tuple(exits_at(block, threshold) if leaves_by_confidence(block) else block for block in spec.blocks)
    if not any(map(leaves_by_confidence, blocks)):
        raise ConfigError(f"{spec.name} has no exits that a threshold of confidence opens; train a `calm`, say")
    return spec.replace(blocks=blocks)


def exits_at(exits: Exits, threshold: Threshold) -> Any:
    """`Exits` with that threshold."""
    return exits.replace(rule=exits.rule.replace(threshold=threshold))


def leaves_by_confidence(block: Spec) -> bool:
    """Whether it is a depth that tokens leave by a threshold of confidence."""
    return isinstance(block, Exits) and isinstance(block.rule, (Confidence, GeometricHalting))
