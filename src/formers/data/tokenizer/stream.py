"""Text out of ids that arrive one at a time, as a model generates them."""

import codecs

from formers.data.tokenizer.protocol import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4


class StreamDecoder:
    """Turns ids into pieces of text that never break a character; joined, with `flush` last, they equal `decode`.

    Where every id has bytes of its own (bytes, characters, byte-level BPE) the pieces come from an incremental UTF-8
    decoder. Elsewhere an id's text depends on the id before it (the space in front of a word, say), so each new id is
    decoded behind the ones last shown, and held back while it ends in an unfinished character. (There, bytes that are
    no UTF-8 give at least one U+FFFD, but perhaps fewer or more of them than `decode` does.)
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._silent = frozenset(tokenizer.special_ids)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._before: list[int] = []
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that this id finishes; empty while a character is incomplete."""
        token = int(token)
        own = self._tokenizer.token_bytes(token)
        if own is not None:
            return self._utf8.decode(own)
        if token in self._silent:
            return ""
        self._held.append(token)
        piece = self._behind_the_last()
        if piece.endswith(_REPLACEMENT) and len(self._held) < _LONGEST_CHARACTER:
            return ""
        self._before, self._held = self._held, []
        return piece

    def flush(self) -> str:
        """What is still held back, at the end of the text."""
        piece = self._behind_the_last() if self._held else ""
        self._before, self._held = [], []
        return self._utf8.decode(b"", final=True) + piece

    def _behind_the_last(self) -> str:
        shown = self._tokenizer.decode(self._before)
        return self._tokenizer.decode([*self._before, *self._held])[len(shown) :]
