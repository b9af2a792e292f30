"""What a model learns from, by its kind: text for decoders and encoders, pairs of sentences for encoder-decoders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from formers.data.atomic import replacing
from formers.data.source import Sentences, documents, pairs, split
from formers.data.tokenizer import Tokenizer
from formers.data.tokens import write_text
from formers.datastore.training import (
    PreparedNeighbours,
    has_neighbours,
    reads_neighbours,
    retrieved_task,
    with_neighbours,
)
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError, DataError
from formers.model import Encoder
from formers.tasks import (
    Masked,
    MaskedSentences,
    Prepared,
    PreparedPairs,
    Task,
    Translation,
    causal_task,
    masked,
    open_prepared,
    prepare,
    prepare_pairs,
    sentences,
)
from formers.tasks.pictures import Pictures, PreparedImages
from formers.train import TrainSpec

Material = Prepared | PreparedPairs

HELD_OUT = 0.05  # of the documents or sentence pairs; of a single document, its end
SIDES = ("source", "target")


def prepare_material(spec: Any, data: Sequence[Path], folder: Path, tokenizer: str) -> Material:
    """Everything that a model of this kind learns from, as tokens in a folder, some of it held out.

    Raises ConfigError for a model that nothing can be learned by, and DataError for data that it cannot learn from.
    """
    _require_head(spec)
    if isinstance(spec, EncoderDecoder):
        return _prepare_pairs(data, folder, tokenizer)
    in_sentences = isinstance(spec, Encoder) and sentences.has_two_inputs(spec)
    special = (sentences.SPECIAL if in_sentences else masked.SPECIAL) if isinstance(spec, Encoder) else ("end",)
    return prepare(
        documents(data), folder, tokenizer=tokenizer, held_out=HELD_OUT, special=special, sentences=in_sentences
    )


def open_material(spec: Any, folder: Path, tokenizer: Tokenizer) -> Material:
    """What `prepare_material` put into a folder. Raises DataError if it is not there."""
    if not folder.is_dir():
        raise DataError(f"there is no {folder}, so the run does not know its data any more; give --data")
    if isinstance(spec, EncoderDecoder):
        train, held_out = (pairs(*(folder / f"{part}.{side}" for side in SIDES)) for part in ("train", "held_out"))
        return prepare_pairs(train, held_out, folder, tokenizer=tokenizer)
    prepared = open_prepared(folder)
    return with_neighbours(prepared, folder) if reads_neighbours(spec) and has_neighbours(folder) else prepared


def material_to_test(spec: Any, data: Sequence[Path], folder: Path, tokenizer: Tokenizer) -> Material:
    """Data to evaluate on alone, all of it, as tokens in a folder."""
    if isinstance(spec, EncoderDecoder):
        given = list(pairs(*_two(data)))
        return prepare_pairs(given, given, folder, tokenizer=tokenizer)
    texts = Sentences(documents(data)) if sentences.has_two_inputs(spec) else documents(data)
    file = write_text(folder / "test.tokens", texts, tokenizer)
    return Prepared(tokenizer, file, file, {})


def task_of(spec: Any, material: Any, train: TrainSpec) -> Task:
    """Next tokens for a decoder, hidden tokens for an encoder, and hidden sentences for one that sums up sentences;
    translations for an encoder-decoder; images for what stands on a canvas."""
    if isinstance(material, PreparedImages):
        return Pictures(material, train, spec)
    if isinstance(spec, EncoderDecoder):
        return Translation(material, train)
    if isinstance(spec, Encoder) and sentences.has_two_inputs(spec):
        return MaskedSentences(material, train)
    if isinstance(material, PreparedNeighbours):
        return retrieved_task(material, train, spec)
    return Masked(material, train) if isinstance(spec, Encoder) else causal_task(material, train, spec)


def require_vocabulary(spec: Any, tokenizer: Tokenizer) -> None:
    """Raise ConfigError if the tokenizer has ids that the model does not know."""
    if isinstance(spec, EncoderDecoder) and spec.source.vocab < tokenizer.vocab:
        raise _too_few(spec.source.vocab, tokenizer, f"--set source.vocab={tokenizer.vocab}")
    if spec.vocab < tokenizer.vocab:
        side = "target." if isinstance(spec, EncoderDecoder) else ""
        raise _too_few(
            spec.vocab, tokenizer, f"vocab={tokenizer.vocab} for a member, --set {side}vocab={tokenizer.vocab}"
        )


def told(material: Material | PreparedImages) -> str:
    """How much there is, in words."""
    if isinstance(material, PreparedImages):
        return f"{len(material.train):,} images to learn from, {len(material.held_out):,} held out"
    if isinstance(material, PreparedPairs):
        return f"{len(material.train):,} sentence pairs to learn from, {len(material.held_out):,} held out"
    return f"{len(material.train):,} tokens to learn from, {len(material.held_out):,} held out"


def _prepare_pairs(data: Sequence[Path], folder: Path, tokenizer: str) -> PreparedPairs:
    joined = [f"{source}\n{target}" for source, target in pairs(*_two(data))]
    train, held_out = ([_apart(line) for line in part] for part in split(joined, HELD_OUT))
    for name, part in (("train", train), ("held_out", held_out)):
        for side, lines in zip(SIDES, zip(*part, strict=True), strict=True):
            with replacing(folder / f"{name}.{side}") as (stream,):
                stream.write("".join(f"{line}\n" for line in lines).encode())
    return prepare_pairs(train, held_out, folder, tokenizer=tokenizer)


def _apart(joined: str) -> tuple[str, str]:
    source, _, target = joined.partition("\n")
    return source, target


def _two(data: Sequence[Path]) -> Sequence[Path]:
    if len(data) != 2:
        raise DataError(
            f"an encoder-decoder learns from two files whose lines translate each other, and {len(data)} were given; "
            "give --data SOURCE TARGET"
        )
    return data


def _require_head(spec: Any) -> None:
    if not isinstance(spec, EncoderDecoder) and spec.head is None:
        raise ConfigError(
            f"{spec.name} has no head, so it predicts nothing and cannot be trained: --set 'head=MaskedLM()'"
        )


def _too_few(vocab: int, tokenizer: Tokenizer, mend: str) -> ConfigError:
    return ConfigError(f"the tokenizer has {tokenizer.vocab} ids and the model knows {vocab}: give it as many ({mend})")
