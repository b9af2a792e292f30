"""The choice of a tokenizer, in a word."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from formers.errors import DataError

BPE = "bpe:"


class Choice(NamedTuple):
    """name: equal for two choices only if they make equal tokenizers of equal text.

    make: the tokenizer, from the texts to train on, and from all texts that it will have to write.
    """

    name: str
    make: Callable[[Iterable[str], Iterable[str]], Tokenizer]


def choose_tokenizer(chosen: str | Tokenizer, special: Sequence[str]) -> Choice:
    """What "bytes", "characters", "bpe:8000", a path or a tokenizer stands for; the first three with special ids.

    Raises DataError for anything else.
    """
    if not isinstance(chosen, str):
        return _given(chosen)
    name = f"{chosen} {' '.join(special)}"
    if chosen == "bytes":
        return Choice(name, lambda train, texts: ByteTokenizer(special))
    if chosen == "characters":
        return Choice(name, lambda train, texts: CharTokenizer.train(texts, special))
    if chosen.startswith(BPE):
        vocab = _number(chosen)
        return Choice(name, lambda train, texts: BPETokenizer.train(train, vocab, special))
    path = Path(chosen)
    if not path.exists():
        raise DataError(
            f"there is no tokenizer {chosen!r}; write bytes, characters, bpe:8000, or the path of a tokenizer.json"
        )
    return _given(load_tokenizer(path) if path.is_dir() else BPETokenizer.load(path))


def _given(tokenizer: Tokenizer) -> Choice:
    return Choice(f"given {tokenizer.fingerprint}", lambda train, texts: tokenizer)


def _number(chosen: str) -> int:
    digits = chosen.removeprefix(BPE)
    if not digits.isascii() or not digits.isdigit():
        raise DataError(f"{chosen!r} does not say how many ids the tokenizer has; write bpe:8000")
    return int(digits)
