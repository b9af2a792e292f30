"""A trained model made into one for long texts: the same weights, with another pattern and more positions.

A conversion is a function (spec, weights, length) -> (spec, weights). It is given the spec of a decoder or an encoder,
its tensors by name, and the length that the new model is to read; it returns those of the new model, with every tensor
that the new spec has. It raises ConfigError for what it cannot convert, and changes nothing that it was given.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from formers.convert.big_bird import big_bird
from formers.convert.etc import etc
from formers.convert.longformer import longformer
from formers.errors import ConfigError
from formers.model import TokenModel
from formers.spec.codec import mean
from formers.train.weights import copy_weights

Conversion = Callable[[Any, dict[str, Tensor], int], tuple[Any, dict[str, Tensor]]]

LONG: dict[str, Conversion] = {"longformer": longformer, "big_bird": big_bird, "etc": etc}


def lengthened(model: nn.Module, to: str, length: int) -> tuple[Any, dict[str, Tensor]]:
    """The spec and the weights of a model as another kind, one of LONG, that reads `length` tokens.

    model: a built decoder or encoder. Raises ConfigError for a kind that is not known, a length below the model's, and
    a model that cannot become that kind.
    """
    spec: Any = model.spec
    if to not in LONG:
        raise ConfigError(f"there is no conversion to {to!r}: {mean(to, LONG)}")
    if not isinstance(spec, TokenModel):
        raise ConfigError(f"{spec.name} is {type(spec).__name__}(...): only a Decoder or an Encoder is made longer")
    if length < 1:
        raise ConfigError(f"a model cannot read {length} tokens: give a length such as 4096")
    new, weights = LONG[to](spec, dict(model.state_dict()), length)
    if new.blocks == spec.blocks:
        raise ConfigError(f"{spec.name} has nothing that becomes {to}: none of its layers is plain attention")
    return new.replace(name=f"{to}_{spec.name}"), weights


def long_model(model: nn.Module, to: str, length: int) -> nn.Module:
    """The model that `lengthened` tells of, built, in evaluation mode, in the type and place of the old one."""
    spec, weights = lengthened(model, to, length)
    built: nn.Module = spec.build().to(next(model.parameters()))
    copy_weights(built, weights, spec.name)
    return built.eval()
