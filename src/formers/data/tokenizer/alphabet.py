"""Tokenizers that need no training: one id per byte, or one per character of a known text."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from formers.data.atomic import read_json, write_json
from formers.data.tokenizer.protocol import special_ids, whole_text
from formers.errors import DataError

_CONFIG = "tokenizer_config.json"


class _Alphabet:
    """Letters with ids from 0 on, then the special ids; the letters are the subclass's."""

    kind: ClassVar[str]

    def __init__(self, letters: int, special: Sequence[str]) -> None:
        roles = special_ids(special, first=letters)
        self.letters = letters
        self.special = tuple(special)
        self.special_ids = tuple(roles.values())
        self.vocab = letters + len(roles)
        self.name = self.kind
        self.end = roles.get("end")
        self.start = roles.get("start")
        self.pad = roles.get("pad")
        self.mask = roles.get("mask")

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "special": list(self.special)}

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.config()).encode()).hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        write_json(Path(folder) / _CONFIG, self.config())


class ByteTokenizer(_Alphabet):
    """One id per byte of UTF-8 (0 to 255), then the special ids; any text, and any bytes at all, can be written.

    special: which of "end", "start", "pad", "mask" get ids, from 256 on in that order. A language model needs the end
    alone; masked-language-model training wants ("end", "pad", "mask").
    """

    kind = "bytes"

    def __init__(self, special: Sequence[str] = ("end",)) -> None:
        super().__init__(256, special)

    def encode(self, text: str) -> list[int]:
        return self.encode_bytes(whole_text(text).encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_bytes(self, content: bytes) -> list[int]:
        return list(content)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return bytes(token for token in map(int, ids) if 0 <= token < 256)

    def token_bytes(self, token: int) -> bytes:
        return self.decode_bytes([token])

    @classmethod
    def load(cls, folder: str | Path) -> "ByteTokenizer":
        """Read what `save` wrote; raises DataError if it is damaged."""
        return cls(_texts_of(read_json(Path(folder) / _CONFIG), "special", folder))


class CharTokenizer(_Alphabet):
    """One id per character, in sorted order, then the special ids: nanoGPT's setting on tinyshakespeare.

    characters: the alphabet; repeated ones count once. special: as in ByteTokenizer, none by default.
    """

    kind = "characters"

    def __init__(self, characters: Iterable[str], special: Sequence[str] = ()) -> None:
        self.characters = "".join(sorted(set(characters)))
        super().__init__(len(self.characters), special)
        if not self.characters:
            raise DataError("there are no characters to number: the text is empty")
        self._codes = np.array([ord(character) for character in self.characters], dtype=np.uint32)

    @classmethod
    def train(cls, texts: Iterable[str], special: Sequence[str] = ()) -> "CharTokenizer":
        """The tokenizer whose alphabet is every character of the texts."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        return cls(alphabet, special)

    def encode(self, text: str) -> list[int]:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.minimum(np.searchsorted(self._codes, codes), self.letters - 1)
        strange = np.flatnonzero(self._codes[places] != codes)
        if strange.size:
            raise DataError(
                f"the character {text[strange[0]]!r} (number {strange[0]} of the text) is not among the "
                f"{self.letters} that this tokenizer knows; leave it out, or use a byte tokenizer"
            )
        ids: list[int] = places.tolist()
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[token] for token in map(int, ids) if 0 <= token < self.letters)

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode("utf-8", "replace")

    def config(self) -> dict[str, Any]:
        return {**super().config(), "characters": self.characters}

    @classmethod
    def load(cls, folder: str | Path) -> "CharTokenizer":
        """Read what `save` wrote; raises DataError if it is damaged."""
        config = read_json(Path(folder) / _CONFIG)
        return cls(_texts_of(config, "characters", folder), _texts_of(config, "special", folder))


def _texts_of(config: dict[str, Any], key: str, folder: str | Path) -> list[str]:
    value = config.get(key)
    if not isinstance(value, list | str) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{Path(folder) / _CONFIG} is damaged: {key!r} is {value!r}; save the tokenizer again")
    return list(value)
