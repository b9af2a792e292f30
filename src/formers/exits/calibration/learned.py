"""A classifier of confidence, trained beside a model that stays as it is. CALM, arXiv:2207.07061, section 3.5."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.exits.calibration.threshold import leaves_by_confidence
from formers.exits.confidence import LearnedConfidence
from formers.exits.layer import Exits
from formers.spec.core import Site


def with_learned_confidence(
    model: Any,
    run: Callable[[Any, int], Any],
    *,
    steps: int,
    rate: float = 1e-2,
    tick: Callable[[], object] = lambda: None,
) -> Any:
    """The model with a trained `LearnedConfidence` in place of its measure, and without a threshold.

    It has the very parameters of the old one, which stays as it is: nothing but the classifier learns, by Adam, from
    `steps` passes, all exits of which are seen and nothing dropped. run(model, step): does one pass over text to learn
    from, and gives what the model gave. Raises ConfigError where nothing in the model leaves by its confidence.
    """
    new = _with_classifier(model)
    layers = [module for module in new.modules() if _is_exits(module)]
    learned = [part for layer in layers for part in layer.rule.parameters()]
    optimizer = torch.optim.Adam(learned, lr=rate)
    for layer in layers:  # these alone train, so that all tokens run to the end and no dropout is drawn
        layer.training = layer.rule.training = True
    for step in range(1, steps + 1):
        losses: dict[str, Tensor] = run(new, step).losses
        wanted = [loss for name, loss in losses.items() if name.endswith("confidence")]
        gradients = torch.autograd.grad(torch.stack(wanted).sum(), learned)
        for part, gradient in zip(learned, gradients, strict=True):
            part.grad = gradient
        optimizer.step()
        tick()
    return new.eval()


def _with_classifier(model: Any) -> Any:
    """The model with a fresh classifier at its exits."""
    new = copy.deepcopy(model, {id(part): part for part in (*model.parameters(), *model.buffers())})
    changed = 0
    side: Any = new.target if isinstance(new.spec, EncoderDecoder) else new
    side.spec = _learned(side.spec)
    for layer, spec in zip(side.stack.blocks, side.spec.blocks, strict=True):
        if leaves_by_confidence(spec):
            layer.spec = spec
            layer.rule = spec.rule.build(Site(dim=side.spec.dim), len(layer.blocks)).to(layer_weight(layer))
            changed += 1
    if isinstance(new.spec, EncoderDecoder):
        new.spec = new.spec.replace(target=new.target.spec)
    if not changed:
        raise ConfigError(f"{model.spec.name} has no exits that confidence opens; train a `calm`, say")
    return new


def layer_weight(layer: nn.Module) -> Tensor:
    """Some parameter, which tells the type and the device of the others."""
    return next(layer.parameters())


def _learned(spec: Any) -> Any:
    """The spec of a model with a learned confidence, and no threshold."""
    blocks = tuple(_with_rule(block) if leaves_by_confidence(block) else block for block in spec.blocks)
    return spec.replace(blocks=blocks)


def _with_rule(exits: Exits) -> Any:
    rule: Any = exits.rule
    return exits.replace(rule=LearnedConfidence(None, getattr(rule, "decay", None)))


def _is_exits(module: nn.Module) -> bool:
    return leaves_by_confidence(getattr(module, "spec", None))  # type: ignore[arg-type]
