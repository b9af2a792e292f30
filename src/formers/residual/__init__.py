"""Residual rules: how the sublayers of a block read from the stream and write to it, plainly or through gates."""

from formers.residual.rules import (
    PostNorm,
    PostNormRule,
    PreNorm,
    PreNormRule,
    Residual,
    ResidualRule,
    Sublayer,
    dropout_problems,
)

__all__ = [
    "PostNorm",
    "PostNormRule",
    "PreNorm",
    "PreNormRule",
    "Residual",
    "ResidualRule",
    "Sublayer",
    "dropout_problems",
]
