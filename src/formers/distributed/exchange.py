"""Experts on several processes: tokens travel to the process that has their expert, and back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup


class DividedExperts(nn.Module):
    """The experts of one process, in the place of all: number r of a group has the r-th equal share of them.

    Its parameters have the names that they had, so that a checkpoint of it is one of the model. Parameters of the given
    experts are cut; what the processes of a group send is summed up by the way that it comes back.
    """

    def __init__(self, experts: Any, group: ProcessGroup) -> None:
        super().__init__()
        self._group, self._ways = group, group.size()
        for parameter in experts.parameters():
            cut = parameter.data.chunk(self._ways)[group.rank()].clone()
            parameter.data = cut
        experts.count //= self._ways
        for name, part in experts.named_children():
            self.add_module(name, part)
        self._own = [experts]  # in a list: its parameters are registered once, under their old names

    def train(self, mode: bool = True) -> "DividedExperts":
        self._own[0].train(mode)
        return super().train(mode)

    def forward(self, seats: Tensor) -> Tensor:
        """seats (N, S, M), as many in every process -> (N, S, M)."""
        ways, own = self._ways, self._own[0].count
        arrived = _exchanged(seats.flatten(0, 1), None, None, self._group).view(ways, own, *seats.shape[1:])
        made = self._own[0](arrived.transpose(0, 1).flatten(1, 2))
        back = made.unflatten(1, (ways, -1)).transpose(0, 1).flatten(0, 2)
        return _exchanged(back, None, None, self._group).view_as(seats)

    def grouped(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """rows (n, M), the first sizes[0] of them of expert 0, and so on -> (n, M)."""
        counts = torch.tensor(sizes, device=rows.device)
        coming = torch.empty_like(counts)
        distributed.all_to_all_single(coming, counts, group=self._group)
        table = coming.view(self._ways, -1)  # [from whom, for which of our experts]
        out = counts.view(self._ways, -1).sum(1).tolist()
        into = table.sum(1).tolist()
        arrived = _exchanged(rows, out, into, self._group)
        order = _by_expert(table)
        made = self._own[0].grouped(arrived[order], table.sum(0).tolist())
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return _exchanged(made[back], into, out, self._group)


def _by_expert(table: Tensor) -> Tensor:
    """Where rows that came process by process lie, expert by expert. table [process, expert]: how many."""
    experts = torch.arange(table.shape[1], device=table.device).repeat(table.shape[0])
    return experts.repeat_interleave(table.flatten()).argsort(stable=True)


def _exchanged(x: Tensor, out: list[int] | None, into: list[int] | None, group: ProcessGroup) -> Tensor:
    arrived: Tensor = _Exchange.apply(x, out, into, group)
    return arrived


class _Exchange(torch.autograd.Function):
    """Rows for process r go there, and its rows for this one come; None: as many for each. Gradients go back alike."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: list[int] | None, into: list[int] | None, group: ProcessGroup) -> Tensor:
        ctx.out, ctx.into, ctx.group = out, into, group
        return _sent(x, out, into, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        return _sent(upstream, ctx.into, ctx.out, ctx.group), None, None, None


def _sent(x: Tensor, out: list[int] | None, into: list[int] | None, group: ProcessGroup) -> Tensor:
    arrived = x.new_empty(len(x) if into is None else sum(into), *x.shape[1:])
    distributed.all_to_all_single(arrived, x.contiguous(), into, out, group=group)
    return arrived
