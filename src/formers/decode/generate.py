"""Writing behind prompts token by token: whole batches at once, or as a stream of text."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from formers.data.tokenizer import Tokenizer
from formers.decode.engine import Choice, EngineName, chosen
from formers.decode.prompt import Prompts, prepare
from formers.decode.sampling import Sampling, row_seeds
from formers.decode.transcript import Generation, Stops, Transcript
from formers.errors import FormersError

Piece = TypeVar("Piece")
Stop = int | str | Sequence[int | str]


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int,
    sampling: Sampling = Sampling(),
    stop: Stop = (),
    tokenizer: Tokenizer | None = None,
    start: int | None = None,
    seed: int = 0,
    engine: EngineName | Choice = "auto",
    dtype: str | None = None,
) -> list[Generation]:
    """Write behind each prompt, or, for an encoder-decoder, write what belongs to each source.

    Each row ends by itself and equals the row alone, however long its neighbours are: row r draws its random numbers
    from a seed of its own, which its result tells, and row 0 from `seed` itself.

    max_new: the most tokens that a row may get. stop: ids and strings that end a row; a tokenizer's end id always does.
    start: the id that an encoder-decoder, or an empty prompt, begins with; by default the tokenizer's start or end id.
    engine: 'auto' decodes natively where that can be, 'native' says what is in the way where it cannot, 'torch' does not;
    or what `choose_engine` has chosen, for those who write often with one model: its weights are packed once.
    dtype: of the native engine's weights, 'fp32', 'bf16', 'int8' or 'int4'; None: the model's own.
    Raises FormersError for prompts that the model cannot read or continue.
    """
    how: dict[str, Any] = {"max_new": max_new, "sampling": sampling, "stop": stop, "start": start, "seed": seed}
    run = stream_batch(model, prompts, **how, tokenizer=tokenizer, engine=engine, dtype=dtype)
    for _ in run:
        pass
    return run.results


def stream(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    max_new: int,
    tokenizer: Tokenizer,
    sampling: Sampling = Sampling(),
    stop: Stop = (),
    start: int | None = None,
    seed: int = 0,
    engine: EngineName | Choice = "auto",
    dtype: str | None = None,
) -> "Stream[str]":
    """The text behind one prompt in pieces, each as soon as it is certain. Arguments and errors as for `generate`."""
    how: dict[str, Any] = {"max_new": max_new, "sampling": sampling, "stop": stop, "start": start, "seed": seed}
    run = stream_batch(model, [prompt], **how, tokenizer=tokenizer, engine=engine, dtype=dtype)
    return Stream((piece for _, piece in run), run._transcripts)


def stream_batch(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int,
    sampling: Sampling = Sampling(),
    stop: Stop = (),
    tokenizer: Tokenizer | None = None,
    start: int | None = None,
    seed: int = 0,
    engine: EngineName | Choice = "auto",
    dtype: str | None = None,
) -> "Stream[tuple[int, str]]":
    """(row, piece) of the text behind several prompts, as soon as it is certain. All else is as for `generate`."""
    ready = prepare(model, prompts, max_new, start, tokenizer)
    stops = Stops.of(stop, tokenizer, ready.vocab)
    choice = chosen(model, engine, dtype)
    seeds = row_seeds(seed, len(prompts))
    transcripts = [
        Transcript(stops, budget, row_seed, tokenizer) for budget, row_seed in zip(ready.budgets, seeds, strict=True)
    ]
    return Stream(_write(model, choice, ready, sampling, seeds, transcripts), transcripts)


class Stream(Iterator[Piece], Generic[Piece]):
    """Text as it arrives. When it is over, `results` holds the whole of it and how each row ended."""

    def __init__(self, pieces: Iterator[Piece], transcripts: list[Transcript]) -> None:
        self._pieces, self._transcripts = pieces, transcripts

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def results(self) -> list[Generation]:
        """One for each prompt, in order. Raises FormersError while any row is still being written."""
        if any(transcript.finish is None for transcript in self._transcripts):
            raise FormersError("the stream is not over yet; take its pieces to the end before its results")
        return [transcript.result() for transcript in self._transcripts]


def _write(
    model: nn.Module,
    choice: Choice,
    prompts: Prompts,
    sampling: Sampling,
    seeds: list[int],
    transcripts: list[Transcript],
) -> Iterator[tuple[int, str]]:
    writer = choice.writer(model, prompts, sampling, seeds)
    del choice  # it may hold weights that have been packed by now
    live = list(range(len(transcripts)))
    while live:
        for row, token in zip(live, writer.write(), strict=True):
            if piece := transcripts[row].add(token):
                yield row, piece
        kept = [place for place, row in enumerate(live) if transcripts[row].finish is None]
        if len(kept) < len(live):
            live = [live[place] for place in kept]
            writer.keep(kept)
