"""The members of the family: each a function of a dozen lines that returns a spec."""

from formers.family import (
    adaptive_span,
    big_bird,
    content,
    etc,
    image,
    longformer,
    originals,
    pretrained,
    scaling,
    sparse,
    terraformer,
    terraformer_lm,
)
from formers.family.registry import MEMBERS, Member, make, member

__all__ = [
    "MEMBERS",
    "Member",
    "adaptive_span",
    "big_bird",
    "content",
    "etc",
    "image",
    "longformer",
    "make",
    "member",
    "originals",
    "pretrained",
    "scaling",
    "sparse",
    "terraformer",
    "terraformer_lm",
]
