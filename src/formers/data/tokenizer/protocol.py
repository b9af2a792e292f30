"""What every tokenizer is, and the four roles that a special id can play."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from formers.errors import DataError

ROLES = ("end", "start", "pad", "mask")


class Tokenizer(Protocol):
    """Text to ids and back.

    Ids run from 0 to vocab - 1. `end` closes a text, `start` opens one, `pad` fills up, `mask` hides a token; each is
    None where the tokenizer has none. `encode` gives the ids of the text alone: no start and no end around them.
    """

    @property
    def name(self) -> str:
        """One word for logs, such as "bytes" or "bpe"."""

    @property
    def vocab(self) -> int:
        """How many ids there are, special ones included."""

    @property
    def end(self) -> int | None:
        """The id that closes a text."""

    @property
    def start(self) -> int | None:
        """The id that opens a text."""

    @property
    def pad(self) -> int | None:
        """The id that fills up a batch."""

    @property
    def mask(self) -> int | None:
        """The id that hides a token, as in BERT."""

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Every id that stands for no text."""

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers if and only if they give the same ids."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text; raises DataError if it cannot be written in them."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, in parallel where that helps."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; ids that stand for no text, or lie beyond the vocabulary, add nothing."""

    def token_bytes(self, token: int) -> bytes | None:
        """What one id adds to the text in UTF-8, or None where that depends on its neighbours."""

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, for `load_tokenizer`."""


def special_ids(special: Sequence[str], first: int) -> dict[str, int]:
    """Ids for the wanted roles, from `first` on, in the order given."""
    unknown = [role for role in special if role not in ROLES]
    if unknown or len(set(special)) < len(special):
        raise DataError(f"special={tuple(special)} must name each of {', '.join(ROLES)} at most once, and nothing else")
    return {role: first + place for place, role in enumerate(special)}


def whole_text(text: str) -> str:
    """The text with lone surrogates, which no encoding can hold, replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
