"""From text and the choice of a tokenizer to token files, made once and found again."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from formers.data.progress import watched
from formers.data.source import Sentences, documents, split, split_text
from formers.data.tokenizer import Tokenizer, load_tokenizer
from formers.data.tokens import TokenFile, write_text
from formers.tasks.choice import choose_tokenizer
from formers.tasks.record import digest_of_texts, forget_note, is_noted, read_note, write_note
from formers.train.digest import digest_of_file

TRAIN, HELD_OUT = "train.tokens", "held_out.tokens"


@dataclass(frozen=True)
class Prepared:
    """Text as tokens: what to train on, what is held out, the tokenizer that wrote both, and what identifies them."""

    tokenizer: Tokenizer
    train: TokenFile
    held_out: TokenFile
    fingerprints: dict[str, str]


def prepare(
    text: str | Path | Iterable[str],
    folder: str | Path,
    *,
    tokenizer: str | Tokenizer = "bytes",
    held_out: float = 0.05,
    special: Sequence[str] = ("end",),
    sentences: bool = False,
) -> Prepared:
    """Write text as tokens into a folder, with the tokenizer; what was written there before from the same is opened.

    text: a path (file, folder, JSON lines), or documents that can be walked through more than once. One document is
    cut, and its end held out; of more, whole ones are held out, chosen by their content. tokenizer: "bytes",
    "characters", "bpe:8000" (at most 8000 ids, trained on the text to train on), a path, or a tokenizer. special: the
    ids beside those of text that a tokenizer made here has. sentences: each is closed by the end id, as a document is.

    Raises DataError for text that cannot be read, a tokenizer that there is not, or a folder that cannot be written.
    """
    folder = Path(folder)
    texts = documents(text) if isinstance(text, (str, Path)) else text
    choice = choose_tokenizer(tokenizer, special)
    digest = digest_of_texts(watched(texts, "reading"))
    made_from = {"text": digest, "tokenizer": choice.name, "held_out": held_out, "sentences": sentences}
    if is_noted(folder, made_from):
        return open_prepared(folder)
    train, rest = _split(texts, held_out)
    made = choice.make(train, texts)
    if sentences:
        train, rest = Sentences(train), Sentences(rest)
    forget_note(folder)
    made.save(folder)
    files = [write_text(folder / TRAIN, watched(train, "encoding"), made)]
    files.append(write_text(folder / HELD_OUT, watched(rest, "encoding what is held out"), made))
    fingerprints = {file.path.stem: digest_of_file(file.path) for file in files} | {"tokenizer": made.fingerprint}
    write_note(folder, {**made_from, "fingerprints": fingerprints})
    return open_prepared(folder)


def open_prepared(folder: str | Path) -> Prepared:
    """Open what `prepare` wrote, without the text. Raises DataError if it is not there, or not whole."""
    folder = Path(folder)
    fingerprints = dict(read_note(folder).get("fingerprints", {}))
    tokenizer = load_tokenizer(folder)
    train, held_out = TokenFile.open(folder / TRAIN), TokenFile.open(folder / HELD_OUT)
    for file in (train, held_out):
        file.require(tokenizer)
    return Prepared(tokenizer, train, held_out, fingerprints)


def _split(texts: Iterable[str], held_out: float) -> tuple[Iterable[str], Iterable[str]]:
    """Whole documents apart; of a single one, the beginning and the end."""
    first = list(itertools.islice(texts, 2))
    if len(first) > 1:
        return split(texts, held_out)
    train, rest = split_text("".join(first), held_out)
    return [train], [rest]
