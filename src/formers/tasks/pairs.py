"""From sentence pairs and the choice of a tokenizer to ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from formers.data.tokenizer import Tokenizer, load_tokenizer
from formers.tasks.choice import choose_tokenizer
from formers.tasks.record import digest_of_texts, forget_note, is_noted, write_note

SPECIAL = ("end", "start", "pad")

TextPairs = Sequence[tuple[str, str]]
IdPairs = list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class PreparedPairs:
    """Sentence pairs as ids, without ends or starts; the held-out ones as text too. One tokenizer writes both sides."""

    tokenizer: Tokenizer
    train: IdPairs
    held_out: IdPairs
    held_out_text: TextPairs
    fingerprints: dict[str, str]


def prepare_pairs(
    train: Iterable[tuple[str, str]],
    held_out: Iterable[tuple[str, str]],
    folder: str | Path,
    *,
    tokenizer: str | Tokenizer = "bpe:8000",
    special: Sequence[str] = SPECIAL,
) -> PreparedPairs:
    """Encode sentence pairs, with the tokenizer that the folder has for them, or one made now and kept there.

    tokenizer: as for `prepare`; one that is trained sees both sides of the pairs to train on.
    Raises DataError for a tokenizer that there is not, or a folder that cannot be written.
    """
    folder, learned, tested = Path(folder), list(train), list(held_out)
    fingerprints = {"train": _digest(learned), "held_out": _digest(tested)}
    choice = choose_tokenizer(tokenizer, special)
    made_from = {**fingerprints, "tokenizer": choice.name}
    if is_noted(folder, made_from):
        made = load_tokenizer(folder)
    else:
        forget_note(folder)
        sides = [text for pair in learned for text in pair]
        made = choice.make(sides, sides + [text for pair in tested for text in pair])
        made.save(folder)
        write_note(folder, made_from)
    fingerprints["tokenizer"] = made.fingerprint
    return PreparedPairs(made, _encode(learned, made), _encode(tested, made), tested, fingerprints)


def _encode(pairs: TextPairs, tokenizer: Tokenizer) -> IdPairs:
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_batch([target for _, target in pairs])
    return list(zip(sources, targets, strict=True))


def _digest(pairs: TextPairs) -> str:
    return digest_of_texts(text for pair in pairs for text in pair)
