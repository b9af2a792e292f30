"""The dense counterpart of a model with experts, as a spec: what it is distilled into. arXiv:2101.03961, section 4.2."""

from typing import Any

from formers.call import Layer
from formers.convert.rewrite import rewritten
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.experts import Switch, SwitchAttention
from formers.model import Decoder, Encoder


def dense_counterpart(spec: Any) -> Any:
    """The model with one expert in place of each layer of experts, not routed to: as much work for each token.

    Raises ConfigError for a model that has no experts, or has some within attention.
    """
    if isinstance(spec, EncoderDecoder):
        found = spec.replace(source=_side(spec.source), target=_side(spec.target))
    elif isinstance(spec, (Decoder, Encoder)):
        found = _side(spec)
    else:
        raise ConfigError(f"{type(spec).__name__} has no layers of experts to make dense")
    if found == spec:
        raise ConfigError(f"{spec.name} is dense: it has no layer of experts")
    return found.replace(name=f"dense_{spec.name}")


def _side(spec: Any) -> Any:
    return spec.replace(blocks=rewritten(spec.blocks, _dense))


def _dense(layer: Layer) -> Layer:
    if isinstance(layer, SwitchAttention):
        raise ConfigError(
            "experts within attention have no dense counterpart: its keys are its values, as nowhere else"
        )
    return layer.expert if isinstance(layer, Switch) else layer
