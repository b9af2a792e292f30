"""Tokenizers between Hugging Face's folders and ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from formers.data.atomic import read_json
from formers.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from formers.errors import CheckpointError

CONFIG = "tokenizer_config.json"
ROLE_KEYS = {"end": "eos_token", "start": "bos_token", "pad": "pad_token", "mask": "mask_token"}
# Files of tokenizers that need the library they come from.
FOREIGN = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "source.spm", "target.spm")


def read_tokenizer(folder: Path, config: Mapping[str, Any], vocab: int) -> Tokenizer | None:
    """The tokenizer of a folder, or None where it holds none.

    config: the model's config.json, which says what an encoder-decoder starts from. vocab: how many ids the model has.
    Raises CheckpointError where there is a tokenizer in another format than tokenizer.json, or one with too many ids.
    """
    if not (folder / "tokenizer.json").is_file():
        foreign = [name for name in FOREIGN if (folder / name).is_file()]
        if foreign:
            raise CheckpointError(
                f"{folder} holds a tokenizer as {', '.join(foreign)} and not as tokenizer.json; write that with "
                "transformers' AutoTokenizer.from_pretrained and save_pretrained, or move these files away to import "
                "the model without a tokenizer"
            )
        return None
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab > vocab:
        raise CheckpointError(
            f"the tokenizer of {folder} has {tokenizer.vocab} ids and the model only {vocab}; "
            "put the tokenizer that belongs to this model there"
        )
    start = config.get("decoder_start_token_id")
    return tokenizer if start is None or start == tokenizer.start else _starting_with(folder, start)


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and what transformers needs beside it."""
    if isinstance(tokenizer, ByteTokenizer):
        tokenizer = _from_bytes(tokenizer)
    elif isinstance(tokenizer, CharTokenizer):
        tokenizer = _from_characters(tokenizer)
    tokenizer.save(folder)


def _starting_with(folder: Path, start: int) -> Tokenizer:
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    name = raw.id_to_token(start)
    if name is None:
        raise CheckpointError(f"decoder_start_token_id is {start!r}, and the tokenizer of {folder} has no such id")
    settings = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return BPETokenizer(raw, {**settings, ROLE_KEYS["start"]: name})


def _from_bytes(tokenizer: ByteTokenizer) -> Tokenizer:
    """The same ids by the tokenizers library: characters that it does not know fall back to their bytes."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    raw = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return _with_roles(raw, tokenizer)


def _from_characters(tokenizer: CharTokenizer) -> Tokenizer:
    """The same ids by the tokenizers library: every character is a word."""
    vocab = {character: place for place, character in enumerate(tokenizer.characters)}
    raw = tokenizers.Tokenizer(models.WordLevel(vocab=vocab))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    return _with_roles(raw, tokenizer)


def _with_roles(raw: tokenizers.Tokenizer, tokenizer: ByteTokenizer | CharTokenizer) -> Tokenizer:
    names = {role: f"<|{role}|>" for role in tokenizer.special}
    raw.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    return BPETokenizer(raw, {ROLE_KEYS[role]: name for role, name in names.items()} | {"split_special_tokens": True})
