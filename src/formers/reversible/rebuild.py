"""The whole reversible stack as one step of autograd: forward keeps two streams, backward rebuilds all others."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.call import Call, Out
from formers.native import kept
from formers.replay import Autocast, Drawn, draw_again, drawn, undisturbed
from formers.reversible.half import Given, Gradients, Half, Streams, Wanted


class Pass:
    """One pass through the halves, and what must be known to go through them again: little, and nothing per token."""

    def __init__(
        self, halves: list[Half], call: Call, pasts: Sequence[Any], choices: Sequence[Any], *, given_both: bool = False
    ) -> None:
        """given_both: x will be two streams side by side, and not one that both begin as."""
        self._halves, self._call, self._given_both = halves, call, given_both
        self._pasts, self._choices = pasts, list(choices)
        self._outs: list[Out] = []
        self._names: list[list[str]] = []
        self._drawn: list[Drawn | None] = []

    def take_hidden(self) -> Tensor | None:
        """The encoder's output, which from now on has to be handed in, so that a gradient reaches it."""
        encoded = self._call.encoded
        if encoded is None:
            return None
        self._call = replace(self._call, encoded=encoded._replace(hidden=encoded.hidden.new_empty(0)))
        return encoded.hidden

    def name_losses(self, losses: Sequence[Tensor]) -> None:
        """Give the halves their losses back, now with a gradient."""
        left = iter(losses)
        self._outs = [out._replace(losses={name: next(left) for name in out.losses}) for out in self._outs]

    def handed_out(self) -> list[Out]:
        """What came out of each half beside its output; it is not kept here any longer."""
        outs, self._outs = self._outs, []
        return outs

    def forth(self, x: Tensor, hidden: Tensor | None) -> tuple[Tensor, ...]:
        """The two streams that x becomes, or that it is, after all halves, and their named losses."""
        self._autocast, self._device, self._dtype = Autocast(x.device), x.device, x.dtype
        exact = torch.promote_types(x.dtype, torch.float32)
        both = x.chunk(2, -1) if self._given_both else (x, x)
        x1, x2 = (copied(stream, exact) for stream in both)
        with self._autocast.again():
            for i, half in enumerate(self._halves):
                self._drawn.append(drawn(x.device) if half.draws else None)
                out = half.add(Streams(x1, x2), self._given(i, hidden))
                self._choices[i] = out.choices
                self._names.append(list(out.losses))
                self._outs.append(out)
                if half.swaps:
                    x1, x2 = x2, x1
        return x1, x2, *(loss for out in self._outs for loss in out.losses.values())

    def back(
        self, streams: Streams, gradients: Streams, slopes: Sequence[Tensor], hidden: Tensor | None
    ) -> tuple[Tensor, Gradients]:
        """The gradients of x, and of the parameters and the encoder's output; uses up the streams and gradients."""
        (x1, x2), (g1, g2), left = streams, gradients, list(slopes)
        others = [] if hidden is None or not hidden.requires_grad else [hidden]
        found = Gradients()
        with undisturbed(self._device), self._autocast.again():
            for i in reversed(range(len(self._halves))):
                if self._halves[i].swaps:
                    x1, x2, g1, g2 = x2, x1, g2, g1
                mine = [left.pop() for _ in self._names[i]][::-1]
                then = self._drawn[i]
                if then is not None:
                    draw_again(self._device, then)
                wanted = Wanted(dict(zip(self._names[i], mine, strict=True)), others, found)
                self._halves[i].take(Streams(x1, x2), Streams(g1, g2), self._given(i, hidden), wanted)
        gradient = torch.cat([g1, g2], -1) if self._given_both else g1.add_(g2)
        return gradient.to(self._dtype), found

    def _given(self, i: int, hidden: Tensor | None) -> Given:
        call = self._call
        if call.encoded is not None and hidden is not None:
            call = replace(call, encoded=call.encoded._replace(hidden=hidden))
        return Given(call, self._pasts[i], self._choices[i], self._dtype, self._autocast)


class Rebuilt(torch.autograd.Function):
    """(x, encoder's output, parameters) -> (the two streams, losses). One backward pass uses the streams up."""

    @staticmethod
    def forward(ctx: Any, run: Pass, x: Tensor, hidden: Tensor | None, *parameters: Tensor) -> tuple[Tensor, ...]:
        x1, x2, *losses = run.forth(x, hidden)
        ctx.run, ctx.parameters = run, parameters
        ctx.save_for_backward(x1, x2, hidden)
        return x1, x2, *losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g1: Tensor, g2: Tensor, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x1, x2, hidden = ctx.saved_tensors
        hidden = None if hidden is None else hidden.detach().requires_grad_(ctx.needs_input_grad[2])
        gradient, found = ctx.run.back(Streams(x1, x2), Streams(g1, g2), slopes, hidden)
        return None, gradient, found.get(hidden), *map(found.get, ctx.parameters)


def copied(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x, contiguous and in memory of its own."""
    return kept.new_empty(x.new_empty(0, dtype=dtype), x.shape).copy_(x)


class Merge(torch.autograd.Function):
    """Two streams as one. Going back it makes a new gradient for each, which `Rebuilt` may change in place."""

    @staticmethod
    def forward(ctx: Any, merge: str, x1: Tensor, x2: Tensor) -> Tensor:
        ctx.merge = merge
        if merge == "concatenate":
            return torch.cat([x1, x2], -1, out=kept.new_empty(x1, (*x1.shape[:-1], 2 * x1.shape[-1])))
        return torch.add(x1, x2).div_(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        if ctx.merge == "concatenate":
            first, second = (copied(half, half.dtype) for half in gradient.chunk(2, -1))
        else:
            first = gradient / 2
            second = first.clone()
        return None, first, second
