"""Positions for a longer model: the old table over and over, as Longformer (arXiv:2004.05150, section 5) does it."""

from typing import Any

from torch import Tensor

from formers.errors import ConfigError
from formers.position import Learned

TABLE = "embedding.position.table.weight"


def with_positions(spec: Any, weights: dict[str, Tensor], length: int) -> tuple[Any, dict[str, Tensor]]:
    """The spec of a decoder or an encoder with `length` positions, and its weights with a table of so many rows.

    Position p begins as position p modulo the old length, so that what lies near together is told apart as before.
    A model that has no table (rotary positions, biases by distance) has no longest length, and stays as it is. Raises
    ConfigError for a length below the model's, and for absolute positions of another kind than `Learned`.
    """
    position = spec.embedding.position
    if spec.max_length is None:
        return spec, weights
    if length < spec.max_length:
        raise ConfigError(
            f"{spec.name} has {spec.max_length} positions already, so {length} would cut it: "
            f"give a length of {spec.max_length} or more"
        )
    if not isinstance(position, Learned):
        raise ConfigError(f"the positions of {spec.name} are {position!r}, and only those of Learned are extended")
    embedding = spec.embedding.replace(position=position.replace(length=length))
    table = weights[TABLE]
    longer = table.repeat(-(-length // len(table)), 1)[:length]
    return spec.replace(embedding=embedding), {**weights, TABLE: longer}
