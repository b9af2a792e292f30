"""Texts in sentences."""

import re
from collections.abc import Iterable, Iterator

# Behind a full stop, an exclamation or a question mark, and what may close a quotation, unless a small letter follows;
# or at an empty line.
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)\]]))\s+(?![a-z\s])|\n[ \t]*\n\s*")


class Sentences:
    """Every sentence of some texts as a text of its own, in order, read anew every time they are walked through.

    The space between two sentences is left out. Abbreviations are taken for ends, as no language is assumed.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts

    def __iter__(self) -> Iterator[str]:
        return (sentence for text in self._texts for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    """The sentences of one text, none of them empty."""
    return [piece for piece in _END.split(text.strip()) if piece]
