"""The checkpoint families that are known, and which of them a config.json or a spec belongs to."""

from collections.abc import Collection, Mapping
from typing import Any

from formers.errors import CheckpointError, ConfigError
from formers.hub.bert import BERT
from formers.hub.big_bird import BIG_BIRD
from formers.hub.bloom import BLOOM
from formers.hub.fnet import FNET
from formers.hub.format import Format, numbered
from formers.hub.gpt2 import GPT2
from formers.hub.llama import LLAMA
from formers.hub.longformer import LONGFORMER
from formers.hub.marian import MARIAN
from formers.hub.reformer import REFORMER
from formers.hub.roberta import ROBERTA
from formers.hub.roformer import ROFORMER
from formers.spec import Spec

FORMATS: dict[str, Format] = {
    known.model_type: known
    for known in (GPT2, LLAMA, BLOOM, BERT, ROBERTA, ROFORMER, LONGFORMER, BIG_BIRD, FNET, MARIAN, REFORMER)
}


def format_of(config: Mapping[str, Any], where: str = "config.json") -> Format:
    """The family that a config.json names. Raises CheckpointError for any other."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FORMATS:
        raise CheckpointError(
            f"{where} says model_type {name!r}, and the weights of that family cannot be mapped; "
            f"those of {', '.join(FORMATS)} can"
        )
    return FORMATS[name]


def spec_from_config(
    config: Mapping[str, Any], names: Collection[str] | None = None, where: str = "config.json"
) -> Any:
    """The spec that a config.json describes.

    names: of the checkpoint's tensors, which show the optional parts (heads, poolers); without them `architectures`
    tells. Raises CheckpointError with everything in it that cannot be mapped.
    """
    return format_of(config, where).read(config, names, where)


def config_from_spec(spec: Spec) -> dict[str, Any]:
    """The config.json of a spec. Raises ConfigError with all that the nearest family cannot say.

    Where several families can say it, as BERT and RoBERTa can, it is that which the model is named after.
    """
    failures: dict[str, list[str]] = {}
    for name, known in sorted(FORMATS.items(), key=lambda item: item[0] != getattr(spec, "name", None)):
        if isinstance(spec, known.kind):
            config, failures[name] = known.attempt(spec)
            if not failures[name]:
                return known.counted(config, known.ahead(config))
    if not failures:
        raise ConfigError(f"no family of published checkpoints has models like {type(spec).__name__}(...)")
    nearest = min(failures, key=lambda name: len(failures[name]))
    raise ConfigError(
        f"no family of published checkpoints has this model; {nearest} comes nearest, and cannot say it: "
        f"{numbered(failures[nearest])}"
    )
