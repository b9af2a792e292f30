"""Token files: ids in one flat file that is mapped into memory, with a small JSON header beside it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from formers.data.atomic import as_json, read_json, replacing
from formers.data.tokenizer.protocol import Tokenizer
from formers.errors import DataError

Ids = npt.NDArray[np.integer[Any]]

_FORMAT = "formers tokens 1"
_WIDTHS: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
# Characters that are encoded at a time: a portion keeps the tokenizer's threads busy, each on a piece of its own.
_PORTION = 1 << 20
_PIECE = 1 << 16
# A long text is cut behind a line that ends in no space and before one that begins with none: word pieces, which never
# hold a line's end together with what follows, then stay the same. _AROUND characters on both sides prove it.
_LINE_END = re.compile(r"\S\n(?=\S)")
_AROUND = 256


class TokenFile:
    """Ids on disk: `tokens` is a read-only memory map, uint16 where the vocabulary allows and uint32 elsewhere.

    text_bytes: bytes of UTF-8 text that the ids stand for, which bits per byte need; None where the writer did not
    know. documents: how many were written. NumPy reads the object as the array itself, so every batcher takes it.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.vocab = int(header["vocab"])
        self.documents = int(header["documents"])
        self.text_bytes: int | None = header["text_bytes"]
        self.fingerprint: str | None = header["fingerprint"]
        self.tokens: Ids = np.memmap(path, dtype=_WIDTHS[header["dtype"]], mode="r")

    @classmethod
    def open(cls, path: str | Path) -> "TokenFile":
        """Map a token file; raises DataError if it or its header is missing, damaged, or cut short."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"there is no token file {path}; write it first")
        header = _checked(read_json(_header_of(path)), _header_of(path))
        promised = header["count"] * _WIDTHS[header["dtype"]].itemsize
        size = path.stat().st_size
        if size != promised:
            raise DataError(f"{path} is damaged: it has {size} bytes where {promised} were written; write it again")
        return cls(path, header)

    def __len__(self) -> int:
        return len(self.tokens)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Ids:
        return np.array(self.tokens, dtype=dtype) if copy else np.asarray(self.tokens, dtype=dtype)

    def require(self, tokenizer: Tokenizer) -> None:
        """Raise DataError if another tokenizer wrote this file: its ids would mean something else."""
        if self.fingerprint is not None and self.fingerprint != tokenizer.fingerprint:
            raise DataError(
                f"{self.path} was written by another tokenizer than this one "
                f"({tokenizer.name}, {tokenizer.vocab} ids); write the tokens again"
            )


class TokenWriter:
    """Takes documents for a token file; `token_writer` makes one and closes it."""

    def __init__(self, stream: BinaryIO, vocab: int) -> None:
        self.vocab = vocab
        self.dtype = "uint16" if vocab <= 1 << 16 else "uint32"
        self.count = self.documents = self.text_bytes = 0
        self._stream = stream

    def add(self, ids: Sequence[int] | Ids, text_bytes: int = 0, *, closes: bool = True) -> None:
        """Append ids that stand for `text_bytes` of text; closes: whether a document ends with them.

        Raises DataError for an id outside the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and not 0 <= array.min() <= array.max() < self.vocab:
            strange = array.max() if array.max() >= self.vocab else array.min()
            raise DataError(f"id {strange} does not fit a vocabulary of {self.vocab}; give the tokenizer's own vocab")
        self._stream.write(array.astype(_WIDTHS[self.dtype]).tobytes())
        self.count += array.size
        self.documents += closes
        self.text_bytes += text_bytes


@contextmanager
def token_writer(path: str | Path, vocab: int, fingerprint: str | None = None) -> Iterator[TokenWriter]:
    """Write a token file document by document; it appears, whole, when the block ends, and not at all if it raises.

    fingerprint: of the tokenizer. Raises DataError if nothing was added.
    """
    path = Path(path)
    with replacing(path, _header_of(path)) as (stream, beside):
        writer = TokenWriter(stream, vocab)
        yield writer
        if not writer.count:
            raise DataError(f"nothing to write into {path}: the data gave no tokens; name data that holds text")
        header = {
            "format": _FORMAT,
            "dtype": writer.dtype,
            "count": writer.count,
            "vocab": vocab,
            "documents": writer.documents,
            "text_bytes": writer.text_bytes or None,
            "fingerprint": fingerprint,
        }
        beside.write(as_json(header))


def write_tokens(path: str | Path, documents: Iterable[Sequence[int] | Ids], vocab: int) -> TokenFile:
    """Write ids that are at hand, end ids included where wanted; how much text they stand for stays unknown."""
    with token_writer(path, vocab) as writer:
        for ids in documents:
            writer.add(ids)
    return TokenFile.open(path)


def write_text(path: str | Path, texts: Iterable[str], tokenizer: Tokenizer) -> TokenFile:
    """Encode texts as they come and write them end to end, the tokenizer's end id (if it has one) after each.

    A few million characters are in memory at a time; wrap `texts` in `formers.data.progress.watched` to see it go.
    """
    with token_writer(path, tokenizer.vocab, tokenizer.fingerprint) as writer:
        for portion in _portions(texts, tokenizer):
            for piece, ids in zip(portion, tokenizer.encode_batch([piece.text for piece in portion]), strict=True):
                if piece.closes and tokenizer.end is not None:
                    ids.append(tokenizer.end)
                writer.add(ids, len(piece.text.encode("utf-8", "surrogatepass")), closes=piece.closes)
    return TokenFile.open(path)


class _Piece(NamedTuple):
    text: str
    closes: bool


def _portions(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[_Piece]]:
    """Pieces of the texts, grouped so that a group is at least _PORTION characters (the last one may be less)."""
    portion: list[_Piece] = []
    size = 0
    for text in texts:
        for piece in _pieces(text, tokenizer):
            portion.append(piece)
            size += len(piece.text)
            if size >= _PORTION:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion


def _pieces(text: str, tokenizer: Tokenizer) -> Iterator[_Piece]:
    """A long text in pieces of little more than _PIECE characters, wherever that leaves its ids as they are."""
    start = 0
    while len(text) - start > _PIECE and (line := _LINE_END.search(text, start + _PIECE)):
        cut = line.end()
        if not _harmless(text, cut, tokenizer):
            break
        yield _Piece(text[start:cut], closes=False)
        start = cut
    yield _Piece(text[start:], closes=True)


def _harmless(text: str, cut: int, tokenizer: Tokenizer) -> bool:
    """Whether the ids around the cut are the same with and without it (a tokenizer may put a space before a text)."""
    left, right = text[max(0, cut - _AROUND) : cut], text[cut : cut + _AROUND]
    return tokenizer.encode(left + right) == tokenizer.encode(left) + tokenizer.encode(right)


def _header_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _checked(header: dict[str, Any], place: Path) -> dict[str, Any]:
    """The header itself, if it is one; raises DataError for anything else."""
    whole = all(isinstance(header.get(key), int) and header[key] >= 0 for key in ("count", "vocab", "documents"))
    text_bytes, fingerprint = header.get("text_bytes"), header.get("fingerprint")
    known = isinstance(text_bytes, int | None) and isinstance(fingerprint, str | None)
    if header.get("format") != _FORMAT or header.get("dtype") not in _WIDTHS or not whole or not known:
        raise DataError(f"{place} is no header of a token file that this version writes; write the tokens again")
    return header
