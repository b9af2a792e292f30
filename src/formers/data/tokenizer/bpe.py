"""Tokenizers of the `tokenizers` library: byte-level BPE trained here, or any tokenizer.json from Hugging Face."""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from formers.data.atomic import as_json, read_json, replacing
from formers.data.tokenizer.protocol import special_ids, whole_text
from formers.errors import DataError

# Which entries of tokenizer_config.json and special_tokens_map.json say who plays a role, best first ...
_KEYS = {
    "end": ("eos_token", "sep_token"),
    "start": ("bos_token", "cls_token"),
    "pad": ("pad_token",),
    "mask": ("mask_token",),
}
# ... and the names that the published tokenizers use, for folders that say nothing.
_USUAL = {
    "end": ("<|end|>", "<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]", "[EOS]"),
    "start": ("<|start|>", "<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[CLS]", "[BOS]"),
    "pad": ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>"),
    "mask": ("<|mask|>", "<mask>", "[MASK]"),
}


class BPETokenizer:
    """A tokenizer of the `tokenizers` library, whatever its model is: byte-level BPE, WordPiece or Unigram.

    `BPETokenizer.train` makes a byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909, over bytes as in GPT-2), which
    returns every text unchanged, even one that spells a special token. `BPETokenizer.load` reads a tokenizer.json and
    takes the roles of the special ids from the files beside it, or else from the usual names.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: dict[str, Any] | None = None) -> None:
        # Published files often cut at 512 tokens or pad: a text is encoded whole here, and batches pad themselves.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._config = dict(config or {})
        tokenizer.encode_special_tokens = bool(self._config.get("split_special_tokens"))
        numbers = tokenizer.get_vocab(with_added_tokens=True).values()
        if not numbers:
            raise DataError("this tokenizer.json has an empty vocabulary; make it again")
        self.vocab = 1 + max(numbers)
        self.name = type(tokenizer.model).__name__.lower()
        self.end, self.start, self.pad, self.mask = (self._role(role) for role in ("end", "start", "pad", "mask"))
        added = tokenizer.get_added_tokens_decoder()
        special = {token for token, how in added.items() if how.special} | {self.end, self.start, self.pad, self.mask}
        self.special_ids = tuple(sorted(token for token in special if token is not None))
        self._silent = frozenset(self.special_ids)

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int, special: Sequence[str] = ("end",)) -> "BPETokenizer":
        """Learn a byte-level BPE of at most `vocab` ids: the special ones, the 256 bytes, and the merges.

        special: which of "end", "start", "pad", "mask" get ids. Little text gives fewer merges than asked for.
        The library draws its own progress where standard error is a terminal.
        Raises DataError if the vocabulary is too small to hold every byte, or if there is no text.
        """
        names = [f"<|{role}|>" for role in special_ids(special, first=0)]
        least = 256 + len(names)
        if vocab < least:
            raise DataError(
                f"vocab={vocab} cannot hold 256 bytes and {len(names)} special ids; use at least vocab={least}"
            )
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=sys.stderr.isatty(),
        )
        tokenizer.train_from_iterator(_some_text(texts), trainer)
        roles = {_KEYS[role][0]: name for role, name in zip(special, names, strict=True)}
        return cls(tokenizer, {**roles, "split_special_tokens": True})

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Read a tokenizer.json, or the folder that holds one; raises DataError if it is missing or damaged."""
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            tokenizer = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror or error}") from error
        except Exception as error:  # the library raises a bare Exception for whatever it cannot parse
            raise DataError(f"{file} is no tokenizer that the tokenizers library reads: {error}") from error
        return cls(tokenizer, _config_beside(file))

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which Hugging Face's AutoTokenizer reads too."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self._config}
        with replacing(Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json") as (stream, beside):
            stream.write(self._tokenizer.to_str(pretty=True).encode())
            beside.write(as_json(config))

    @cached_property
    def fingerprint(self) -> str:
        content = f"{self._tokenizer.encode_special_tokens} {self._tokenizer.to_str()}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(whole_text(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [whole_text(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        heard = [token for token in map(int, ids) if 0 <= token < self.vocab and token not in self._silent]
        return self._tokenizer.decode(heard)

    def token_bytes(self, token: int) -> bytes | None:
        if not self._byte_level:
            return None
        spelling = self._tokenizer.id_to_token(token) if 0 <= token < self.vocab else None
        if spelling is None or token in self._silent:
            return b""
        values = [_BYTES.get(letter) for letter in spelling]
        # An added token, such as a run of spaces, is spelled as itself.
        return spelling.encode() if None in values else bytes(value for value in values if value is not None)

    @cached_property
    def _byte_level(self) -> bool:
        return isinstance(self._tokenizer.decoder, decoders.ByteLevel)

    def _role(self, role: str) -> int | None:
        for name in (*(_spelling(self._config.get(key)) for key in _KEYS[role]), *_USUAL[role]):
            token = self._tokenizer.token_to_id(name) if name is not None else None
            if token is not None:
                return token
        return None


def _config_beside(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (file.parent / name).is_file():
            config.update(read_json(file.parent / name))
    return config


def _spelling(entry: object) -> str | None:
    """A token in the files is a string, or an object with its content, or null."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _some_text(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        if text:
            empty = False
            yield whole_text(text)
    if empty:
        raise DataError("there is no text to train a tokenizer on; name data that holds some")


def _byte_spelling() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from 256 on, in order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_spelling()
