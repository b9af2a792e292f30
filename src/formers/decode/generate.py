"""Writing behind prompts token by token: whole batches at once, or as a stream of text."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from formers.data.tokenizer import Tokenizer
from formers.decode.engine import Choice, EngineName, Reader, chosen
from formers.decode.prompt import Prompts, at_rest, prepare
from formers.decode.sampling import Sampling, choose, row_seeds, uniforms
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
    batch = _Batch(model, choice.reader(model, prompts), prompts, sampling, seeds)
    del choice  # it may hold weights that have been packed by now
    live = list(range(len(transcripts)))
    while live:
        for row, token in zip(live, batch.write(), strict=True):
            if piece := transcripts[row].add(token):
                yield row, piece
        kept = [place for place, row in enumerate(live) if transcripts[row].finish is None]
        if len(kept) < len(live):
            live = [live[place] for place in kept]
            batch.keep(kept)


class _Batch:
    """The rows that are still being written, on the model's device."""

    def __init__(
        self, model: nn.Module, reader: Reader, prompts: Prompts, sampling: Sampling, seeds: list[int]
    ) -> None:
        self._model, self._reader, self._sampling = model, reader, sampling
        self._tokens: Tensor | None = None  # until the prompts have been read
        steps = max(room for room, _ in prompts.budgets)
        written = prompts.written
        self._device = written.device
        self._width, self._step = written.shape[1], 0
        self._uniforms = None if sampling.greedy else uniforms(seeds, steps, written.device)
        # Room for all that will be written, so that nothing is copied on the way.
        self._history = torch.cat([written, written[:, :1].expand(-1, steps)], 1) if sampling.looks_back else None

    def write(self) -> list[int]:
        """Read what each row was given last, and give it its next token."""
        logits = self._reader.begin() if self._tokens is None else self._reader.read(self._tokens)
        with at_rest(self._model):
            chosen = self._choose(logits)
            self._tokens = chosen[:, None]
            tokens: list[int] = chosen.tolist()
            return tokens

    def _choose(self, logits: Tensor) -> Tensor:
        uniform = None if self._uniforms is None else self._uniforms[:, self._step]
        history = None if self._history is None else self._history[:, : self._width + self._step]
        chosen = choose(logits, self._sampling, uniform, history)
        if self._history is not None:
            self._history[:, self._width + self._step] = chosen
        self._step += 1
        return chosen

    def keep(self, places: list[int]) -> None:
        """Go on with these rows alone."""
        rows = torch.tensor(places, dtype=torch.int64, device=self._device)
        self._reader.keep(rows)
        with at_rest(self._model):
            self._tokens = None if self._tokens is None else self._tokens[rows]
            self._uniforms = None if self._uniforms is None else self._uniforms[rows]
            self._history = None if self._history is None else self._history[rows]
