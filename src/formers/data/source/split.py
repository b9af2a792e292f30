"""Two ways to hold text out of training: by document, and the end of one text."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from formers.errors import DataError

_SCALE = 1 << 64


class Part:
    """Those of the documents that `belongs` chooses, read anew every time they are walked through."""

    def __init__(self, documents: Iterable[str], belongs: Callable[[str], bool]) -> None:
        self._documents = documents
        self._belongs = belongs

    def __iter__(self) -> Iterator[str]:
        return (document for document in self._documents if self._belongs(document))


def split(documents: Iterable[str], held_out: float = 0.05, seed: int = 0) -> tuple[Part, Part]:
    """Documents to train on, and documents held out: about the share `held_out` of them, chosen by their content.

    The choice depends on a document's text and the seed alone, so that it stays when others come or go, and copies of
    one document are never on both sides. Both parts have at least one document. Use `split_text` where there is only
    one; with fewer than two different ones a DataError says so.
    """
    _check(held_out)
    if isinstance(documents, Iterator):
        documents = list(documents)
    keys = {_key(document, seed) for document in documents}
    if len(keys) < 2:
        raise DataError(
            f"{len(keys)} document cannot be split into two parts by document; cut its text with split_text"
        )
    limit = min(max(int(held_out * _SCALE), min(keys) + 1), max(keys))
    return (
        Part(documents, lambda document: _key(document, seed) >= limit),
        Part(documents, lambda document: _key(document, seed) < limit),
    )


def is_held_out(document: str, held_out: float = 0.05, seed: int = 0) -> bool:
    """Whether `split` would hold this document out of a large collection, for one that can be read only once."""
    _check(held_out)
    return _key(document, seed) < int(held_out * _SCALE)


def split_text(text: str, held_out: float = 0.1) -> tuple[str, str]:
    """The beginning of one text to train on, and its last share `held_out`: nanoGPT's way, cut between characters.

    Raises DataError if one of the two would be empty.
    """
    _check(held_out)
    cut = int(len(text) * (1 - held_out))
    if cut in (0, len(text)):
        raise DataError(f"a text of {len(text)} characters is too short to hold {held_out:g} of it out; use more text")
    return text[:cut], text[cut:]


def _key(document: str, seed: int) -> int:
    digest = hashlib.blake2b(document.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest(), "big")


def _check(held_out: float) -> None:
    if not 0 < held_out < 1:
        raise DataError(f"held_out={held_out} is no share of the data; use a number between 0 and 1, such as 0.05")
