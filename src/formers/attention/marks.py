"""Whether a pattern goes by marks: found out by asking it, so that no pattern can forget to say so."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.places import Spots


@lru_cache(maxsize=256)
def asks_for_marks(pattern: Pattern) -> bool:
    """Whether what the pattern shows depends on marks, and not on positions alone."""
    zero = torch.zeros(1, 1, 1, dtype=torch.int64, device="cpu")  # a model may be built without memory
    spots = Spots(zero, _Unknown())
    try:
        pattern.visible(spots, spots, spots.pos)
    except _MarksAskedForError:
        return True
    return False


class _MarksAskedForError(Exception):
    """Somebody has looked at marks that are not known."""


class _Unknown(Mapping[str, Tensor]):
    """Marks that nobody may look at."""

    def __getitem__(self, mark: str) -> Tensor:
        raise _MarksAskedForError

    def __iter__(self) -> Iterator[str]:
        raise _MarksAskedForError

    def __len__(self) -> int:
        raise _MarksAskedForError

    def __contains__(self, mark: object) -> bool:
        raise _MarksAskedForError
