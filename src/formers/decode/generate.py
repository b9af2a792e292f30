"""Writing behind prompts token by token: whole batches at once, or as a stream of text."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from formers.data.tokenizer import Tokenizer
from formers.decode.order import NoRuleError
from formers.decode.prompt import Prompts, at_rest, last_logits, prepare, read
from formers.decode.sampling import Sampling, choose, row_seeds, uniforms
from formers.decode.straight import Straight
from formers.decode.transcript import Generation, Stops, Transcript
from formers.errors import FormersError
from formers.state import select

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
) -> list[Generation]:
    """Write behind each prompt, or, for an encoder-decoder, write what belongs to each source.

    Each row ends by itself and equals the row alone, however long its neighbours are: row r draws its random numbers
    from a seed of its own, which its result tells, and row 0 from `seed` itself.

    max_new: the most tokens that a row may get. stop: ids and strings that end a row; a tokenizer's end id always does.
    start: the id that an encoder-decoder, or an empty prompt, begins with; by default the tokenizer's start or end id.
    Raises FormersError for prompts that the model cannot read or continue.
    """
    run = stream_batch(
        model, prompts, max_new=max_new, sampling=sampling, stop=stop, tokenizer=tokenizer, start=start, seed=seed
    )
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
) -> "Stream[str]":
    """The text behind one prompt in pieces, each as soon as it is certain. Arguments and errors as for `generate`."""
    run = stream_batch(
        model, [prompt], max_new=max_new, sampling=sampling, stop=stop, tokenizer=tokenizer, start=start, seed=seed
    )
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
) -> "Stream[tuple[int, str]]":
    """(row, piece) of the text behind several prompts, as soon as it is certain. All else is as for `generate`."""
    ready = prepare(model, prompts, max_new, start, tokenizer)
    stops = Stops.of(stop, tokenizer, ready.vocab)
    seeds = row_seeds(seed, len(prompts))
    transcripts = [
        Transcript(stops, budget, row_seed, tokenizer) for budget, row_seed in zip(ready.budgets, seeds, strict=True)
    ]
    return Stream(_write(model, ready, sampling, seeds, transcripts), transcripts)


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
    model: nn.Module, prompts: Prompts, sampling: Sampling, seeds: list[int], transcripts: list[Transcript]
) -> Iterator[tuple[int, str]]:
    batch = _Batch(model, prompts, sampling, seeds)
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

    def __init__(self, model: nn.Module, prompts: Prompts, sampling: Sampling, seeds: list[int]) -> None:
        self._model: Any = model
        self._sampling = sampling
        self._prompts: Prompts | None = prompts  # until they have been read
        self._state: Any = None
        self._straight: Straight | None = None
        self._may_be_straight = True
        self._tokens = prompts.written[:, -1:]
        steps = max(room for room, _ in prompts.budgets)
        written = prompts.written
        self._width, self._step = written.shape[1], 0
        self._uniforms = None if sampling.greedy else uniforms(seeds, steps, written.device)
        # Room for all that will be written, so that nothing is copied on the way.
        self._history = torch.cat([written, written[:, :1].expand(-1, steps)], 1) if sampling.looks_back else None

    def write(self) -> list[int]:
        """Read what each row was given last, and give it its next token."""
        with at_rest(self._model):
            if self._prompts is not None:
                logits, self._state = read(self._model, self._prompts)
                self._prompts = None
            else:
                logits = self._read()
            chosen = self._choose(logits)
            self._tokens = chosen[:, None]
            tokens: list[int] = chosen.tolist()
            return tokens

    def _read(self) -> Tensor:
        """The logits (B, V) after the last tokens."""
        if self._straight is None and self._may_be_straight and len(self._tokens) == 1:
            self._may_be_straight = False
            with suppress(NoRuleError):
                self._straight, self._state = Straight(self._model, self._state), None
        if self._straight is not None:
            return self._straight(self._tokens)
        reply = self._model.step(self._tokens, self._state, logits_at=slice(-1, None))
        self._state = reply.state
        return last_logits(reply)

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
        with at_rest(self._model):
            rows = torch.tensor(places, dtype=torch.int64, device=self._tokens.device)
            self._tokens, self._state = self._tokens[rows], select(self._state, rows)
            self._uniforms = None if self._uniforms is None else self._uniforms[rows]
            self._history = None if self._history is None else self._history[rows]
