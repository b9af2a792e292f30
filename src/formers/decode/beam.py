"""Beam search, batched over sources: the ways to write on that a model finds likeliest for their length."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from formers.data.tokenizer import Tokenizer
from formers.decode.hypotheses import NEVER, Ended, Hypothesis, Trace, length_penalty
from formers.decode.prompt import Finish, Prompts, at_rest, last_logits, prepare, read
from formers.decode.transcript import Stops
from formers.errors import FormersError
from formers.state import select


def beam_search(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    width: int,
    max_new: int,
    alpha: float = 0.6,
    best: int = 1,
    stop: int | Sequence[int] = (),
    tokenizer: Tokenizer | None = None,
    start: int | None = None,
) -> list[list[Hypothesis]]:
    """The `best` hypotheses for each source of an encoder-decoder, or behind each prompt of a decoder, best first.

    The beam has `width` places, and a hypothesis that ends holds its place for good: width 1 is greedy decoding. A
    source is done when its likeliest unfinished hypothesis could not beat the worst of its `best` ended ones even by
    running to the limit at no further cost. Unfinished hypotheses are told only where fewer than `best` have ended;
    fewer than `best` come back only where there are no more ways to write on.

    alpha: of the length penalty, 0.6 in arXiv:1706.03762; 0 compares plain log-probabilities. max_new, stop, tokenizer
    and start as for `generate`, but there are no stop strings. Raises FormersError for prompts that the model cannot
    read or continue.
    """
    if not 1 <= best <= width:
        raise FormersError(f"a beam of width {width} cannot give the best {best}; ask for 1 to {width}, or widen it")
    if alpha < 0:
        raise FormersError(f"alpha={alpha} would make long hypotheses pay twice; give 0 or more")
    ready = prepare(model, prompts, max_new, start, tokenizer)
    stops = Stops.of(stop, tokenizer, ready.vocab)
    if stops.strings:
        raise FormersError(f"a beam search stops at ids, and {stops.strings[0]!r} is a string; give its ids")
    with at_rest(model):
        search = _Search(model, ready, width, alpha, best, sorted(stops.ids))
        while search.advance():
            pass
    return [search.hypotheses(source, tokenizer) for source in range(len(prompts))]


class _Search:
    """N sources, of which n are not done, with W places each. A place is live, or has ended and stays empty.

    The model has one row for each live place and no others, R in all.
    """

    def __init__(
        self, model: nn.Module, prompts: Prompts, width: int, alpha: float, best: int, stop_ids: list[int]
    ) -> None:
        self._model: Any = model
        self._width, self._alpha, self._budgets = width, alpha, prompts.budgets
        logits, self._state = read(model, prompts)
        self._logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        sources, device = len(self._budgets), logits.device
        steps = max(room for room, _ in self._budgets)
        self._rooms = torch.tensor([room for room, _ in self._budgets], device=device)
        self._is_stop = torch.zeros(logits.shape[1], dtype=torch.bool, device=device)
        self._is_stop[stop_ids] = True
        self._step = 0

        # Of all N sources: what was written, what has ended, what was live last and at which length.
        self._trace = Trace(sources, steps, width, device)
        self._ended = Ended(sources, best, self._logits)
        self._unfinished = self._logits.new_full((sources, width), NEVER)
        self._lengths = torch.zeros(sources, dtype=torch.int64, device=device)

        self._open = torch.arange(sources, device=device)  # (n,) the sources that are not done
        self._left = torch.full((sources,), width, device=device)  # (n,) how many of their places have not ended
        self._places = self._open * width  # (R,) the place of each row, among n * W
        self._totals = self._logits.new_zeros(sources)  # (R,) the log-probability of each row

    def advance(self) -> bool:
        """Write one token in every live place. False when every source is done."""
        totals, tokens, parents = self._continuations()
        fits = torch.arange(self._width, device=totals.device) < self._left[:, None]
        stops = fits & self._is_stop[tokens] & (totals > NEVER)
        self._trace.write(self._open, self._step, tokens, parents)
        self._step += 1
        self._ended.offer(self._open, totals.masked_fill(~stops, NEVER), self._step, self._alpha)
        self._left = self._left - stops.sum(1)

        totals = totals.masked_fill(stops | ~fits, NEVER)
        self._unfinished[self._open], self._lengths[self._open] = totals, self._step
        rooms = self._rooms[self._open]
        hope = totals.amax(1) / length_penalty(rooms, self._alpha)
        going = (hope > self._ended.worst(self._open)) & (self._step < rooms)
        if not going.any():
            return False
        self._step_model(totals, tokens, parents, going)
        return True

    def _continuations(self) -> tuple[Tensor, Tensor, Tensor]:
        """The W likeliest continuations of each open source: log-probability, token and parent place, (n, W) each."""
        # No more than W of them can grow from one place.
        logits, tokens = self._logits.topk(min(self._width, self._logits.shape[1]), dim=-1)
        totals = self._totals[:, None] + logits - self._logits.logsumexp(-1, keepdim=True)
        count, fan = len(self._open), tokens.shape[1]
        grid = totals.new_full((count * self._width, fan), NEVER).index_copy_(0, self._places, totals)
        token_grid = tokens.new_zeros(count * self._width, fan).index_copy_(0, self._places, tokens)
        totals, index = grid.view(count, -1).topk(self._width, dim=-1)
        return totals, token_grid.view(count, -1).gather(1, index), index // fan

    def _step_model(self, totals: Tensor, tokens: Tensor, parents: Tensor, going: Tensor) -> None:
        """Give the model the last token of each place that stays live, behind the state of its parent."""
        count, rows = len(self._open), len(self._places)
        everyone = torch.arange(rows, device=totals.device)
        row_of = everyone.new_zeros(count * self._width).index_copy_(0, self._places, everyone)
        parents = row_of[parents + torch.arange(count, device=totals.device)[:, None] * self._width]

        live = (totals > NEVER) & going[:, None]
        self._open, self._left, self._totals = self._open[going], self._left[going], totals[live]
        self._places = live[going].flatten().nonzero()[:, 0]
        if not torch.equal(parents[live], everyone):
            self._state = select(self._state, parents[live])
        reply = self._model.step(tokens[live][:, None], self._state, logits_at=slice(-1, None))
        self._logits, self._state = last_logits(reply).to(self._logits.dtype), reply.state

    def hypotheses(self, source: int, tokenizer: Tokenizer | None) -> list[Hypothesis]:
        """What was found for one source, best first."""
        found: list[tuple[float, int, int, Finish]]
        found = [(total, length, place, "stop") for total, length, place in self._ended.of(source)]
        length, why = int(self._lengths[source]), self._budgets[source][1]
        unfinished = [(total, length, place, why) for place, total in enumerate(self._unfinished[source].tolist())]
        found += [item for item in unfinished if item[0] > NEVER][: self._ended.count - len(found)]
        return [self._hypothesis(source, *item, tokenizer) for item in found]

    def _hypothesis(
        self, source: int, total: float, length: int, place: int, finish: Finish, tokenizer: Tokenizer | None
    ) -> Hypothesis:
        written = self._trace.read(source, length, place)
        tokens = written[:-1] if finish == "stop" else written
        text = None if tokenizer is None else tokenizer.decode(tokens)
        return Hypothesis(tokens, text, total, total / length_penalty(length, self._alpha), finish)
