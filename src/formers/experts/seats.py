"""Seats: where each token sits among those of its expert, and the way there and back."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Seating(NamedTuple):
    """Who sits where. A choice is a number below n k: token t's j-th is t k + j.

    choices (m,): the choice that has each seat, expert by expert; n k where a seat is empty.
    seats (n, k): the seat of each choice. taken (n, k): False where a choice got none; None: all have one.
    sizes: how many seats each expert has, where they differ; None: all as many.
    empty: whether a seat may be empty. loads (B, N): how many choices of real tokens fell on each expert, seat or none.
    """

    choices: Tensor
    seats: Tensor
    taken: Tensor | None
    sizes: list[int] | None
    empty: bool
    loads: Tensor


class Sorted(NamedTuple):
    """All choices by expert, then by row, then in the order of tokens; those of padding come last.

    choices (n k,); group (n k,): expert * B + row, N B at padding; place (n k,): how many of its group come before it;
    counts (N B,).
    """

    choices: Tensor
    group: Tensor
    place: Tensor
    counts: Tensor


def sorted_choices(chosen: Tensor, real: Tensor | None, experts: int) -> Sorted:
    """chosen (B, T, k) int64, real (B, T) bool or None."""
    rows = len(chosen)
    group = chosen * rows + torch.arange(rows, device=chosen.device)[:, None, None]
    if real is not None:
        group = group.masked_fill(~real[..., None], experts * rows)
    group, choices = group.flatten().sort(stable=True)
    counts = torch.bincount(group, minlength=experts * rows + 1)
    before = counts.cumsum(0) - counts
    place = torch.arange(len(group), device=group.device) - before[group]
    return Sorted(choices, group, place, counts[:-1])


def room(capacity: float, real: Tensor | None, chosen: Tensor, experts: int) -> Tensor:
    """How many seats an expert has for each row: capacity k T / N, rounded up, of its T real tokens. (B,) int64."""
    rows, length, top_k = chosen.shape
    tokens = torch.full((rows,), length, device=chosen.device) if real is None else real.sum(1)
    # a product that is meant to be whole may come out a little above
    return (tokens.double() * (capacity * top_k / experts) - 1e-9).ceil().long()


def seat_closely(chosen: Tensor, real: Tensor | None, experts: int, capacity: float | None) -> Seating:
    """Seats side by side, none of them empty: an expert has as many as it has tokens."""
    by = sorted_choices(chosen, real, experts)
    counts, loads = by.counts.view(experts, -1), by.counts.view(experts, -1).T
    choices, dropped = by.choices, real is not None
    if capacity is not None:
        limit = room(capacity, real, chosen, experts)
        if bool((counts > limit).any()):
            limits = F.pad(limit.expand(experts, -1).flatten(), (0, 1))
            choices, dropped = choices[by.place < limits[by.group]], True
            counts = counts.minimum(limit)
    sizes = counts.sum(1).tolist()
    choices = choices[: sum(sizes)]
    seats, taken = _seats(choices, torch.arange(len(choices), device=choices.device), chosen, dropped)
    return Seating(choices, seats, taken, sizes, False, loads)


def seat_alike(chosen: Tensor, real: Tensor | None, experts: int, capacity: float | None) -> Seating:
    """As many seats for each expert and row, some of them empty: sizes that follow from shapes alone, for a limit."""
    rows, length, top_k = chosen.shape
    by = sorted_choices(chosen, real, experts)
    if capacity is None:
        limit, most = None, int(by.counts.max())
    else:
        limit = room(capacity, real, chosen, experts)
        most = min(math.ceil(capacity * top_k / experts * length - 1e-9), length)
    limits = by.counts.new_full((experts, rows), most) if limit is None else limit.expand(experts, -1)
    limits = F.pad(limits.flatten(), (0, 1))
    nobody, nowhere = chosen.numel(), experts * rows * most
    seat = torch.where(by.place < limits[by.group], by.group * most + by.place, nowhere)
    choices = torch.full((nowhere + 1,), nobody, device=chosen.device).scatter(0, seat, by.choices)[:-1]
    seats = torch.empty_like(seat).scatter(0, by.choices, seat).view(-1, top_k)
    taken = seats < nowhere
    return Seating(choices, seats.clamp(max=nowhere - 1), taken, None, True, by.counts.view(experts, -1).T)


def _seats(choices: Tensor, seats: Tensor, chosen: Tensor, dropped: bool) -> tuple[Tensor, Tensor | None]:
    """The seat of each choice, (n, k), and whether it has one."""
    found = torch.full((chosen.numel(),), -1 if dropped else 0, device=chosen.device)
    found = found.scatter(0, choices, seats).view(-1, chosen.shape[-1])
    return (found.clamp(min=0), found >= 0) if dropped else (found, None)


def to_seats(x: Tensor, seating: Seating) -> Tensor:
    """x (n, M) -> (m, M), 0 in empty seats."""
    rows: Tensor = _ToSeats.apply(x, seating)
    return rows


def from_seats(made: Tensor, gates: Tensor, seating: Seating) -> Tensor:
    """made (m, M), gates (n, k) -> the sum of what each token's experts made, each times its gate, (n, M)."""
    y: Tensor = _FromSeats.apply(made, gates.to(made.dtype), seating)
    return y


class _ToSeats(torch.autograd.Function):
    """Gathers both ways: no two choices have one seat, so that what autograd would add up can be read instead."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seating: Seating) -> Tensor:
        ctx.seating = seating
        top_k = seating.seats.shape[1]
        tokens = seating.choices if top_k == 1 else seating.choices // top_k
        return _rows(x, tokens, seating.empty)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return _gathered(upstream, ctx.seating.taken, ctx.seating), None


class _FromSeats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: Tensor, gates: Tensor, seating: Seating) -> Tensor:
        ctx.save_for_backward(made, gates)
        ctx.seating = seating
        return _gathered(made, gates if seating.taken is None else gates * seating.taken, seating)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        (made, gates), seating = ctx.saved_tensors, ctx.seating
        top_k = gates.shape[1]
        tokens = seating.choices if top_k == 1 else seating.choices // top_k
        by_made = _rows(upstream, tokens, seating.empty)
        worth = torch.linalg.vecdot(by_made, made)
        by_made *= _rows(gates.reshape(-1, 1), seating.choices, seating.empty)
        by_gates = worth[seating.seats]
        return by_made, by_gates if seating.taken is None else by_gates * seating.taken, None


def _rows(x: Tensor, index: Tensor, beyond: bool) -> Tensor:
    """x (n, M) at index (m,); beyond: an index may be n, and stands for a row of 0."""
    return (F.pad(x, (0, 0, 0, 1)) if beyond else x).index_select(0, index)


def _gathered(made: Tensor, weights: Tensor | None, seating: Seating) -> Tensor:
    """The sum over each token's choices of made (m, M) at their seats, times weights (n, k)."""
    tokens, top_k = seating.seats.shape
    y = made.index_select(0, seating.seats.flatten())
    if weights is not None:
        y *= weights.reshape(-1, 1)
    return y if top_k == 1 else y.view(tokens, top_k, -1).sum(1)
