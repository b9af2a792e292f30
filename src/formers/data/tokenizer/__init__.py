"""Tokenizers: text to ids and back, alike for bytes, characters, and everything the `tokenizers` library can hold."""

from pathlib import Path

from formers.data.atomic import read_json
from formers.data.tokenizer.alphabet import ByteTokenizer, CharTokenizer
from formers.data.tokenizer.bpe import BPETokenizer
from formers.data.tokenizer.protocol import ROLES, Tokenizer
from formers.data.tokenizer.stream import StreamDecoder
from formers.errors import DataError

__all__ = ["ROLES", "BPETokenizer", "ByteTokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that a folder holds: what `save` wrote there, or Hugging Face's tokenizer.json.

    Raises DataError if there is none, or if it is damaged.
    """
    folder = Path(folder)
    config = folder / "tokenizer_config.json"
    kind = read_json(config).get("kind") if config.is_file() else None
    if kind == ByteTokenizer.kind:
        return ByteTokenizer.load(folder)
    if kind == CharTokenizer.kind:
        return CharTokenizer.load(folder)
    if (folder / "tokenizer.json").is_file():
        return BPETokenizer.load(folder)
    raise DataError(
        f"{folder} holds no tokenizer: neither tokenizer.json nor a tokenizer_config.json of ours; "
        "name the folder of a run, or put the model's tokenizer.json there"
    )
