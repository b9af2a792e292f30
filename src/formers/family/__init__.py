"""The members of the family: each a function of a dozen lines that returns a spec."""

from formers.family import content, originals, pretrained, scaling, terraformer, terraformer_lm
from formers.family.registry import MEMBERS, Member, make, member

__all__ = [
    "MEMBERS",
    "Member",
    "content",
    "make",
    "member",
    "originals",
    "pretrained",
    "scaling",
    "terraformer",
    "terraformer_lm",
]
