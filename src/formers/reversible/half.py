"""Half of a reversible block: one sublayer, there and back, in place and part by part."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from formers.call import Call, Out
from formers.parts import Part, grouped, parts_of, pieces, together, without_y
from formers.replay import Autocast
from formers.reversible.sums import Gradients, add_to, summed

# Elements of a stream whose norm is worked on at a time in the backward pass.
NORMED = 1 << 24


class Given(NamedTuple):
    """What a sublayer is given beside its input. dtype: that its norm reads the stream in. autocast: of the pass."""

    call: Call
    past: Any
    choices: Any
    dtype: torch.dtype
    autocast: Autocast


class Wanted(NamedTuple):
    """What one half's way back is asked for.

    slopes: the gradients of its named losses. others: what a gradient must reach beside the half's own parameters.
    found: where the gradients of all of those are added.
    """

    slopes: Mapping[str, Tensor]
    others: Sequence[Tensor]
    found: Gradients


class Streams(NamedTuple):
    """to (B, T, M) is written, seen (B, T, M) is read."""

    to: Tensor
    seen: Tensor


class Half:
    """to += dropout(layer(norm(seen))); swaps: whether the streams change places behind it."""

    def __init__(self, norm: nn.Module, layer: nn.Module, rate: float, swaps: bool = True) -> None:
        self._norm, self._layer, self._rate, self.swaps = norm, layer, rate, swaps

    @property
    def draws(self) -> bool:
        """Whether torch's generators may be asked for numbers: only layers that train may ask them."""
        return any(module.training for module in (self._norm, *self._layer.modules())) or self._rate > 0

    def add(self, streams: Streams, given: Given) -> Out:
        """Write to the one stream what the sublayer makes of the other; gives all that came out beside it."""
        to, seen = streams
        keep = self._keep(to)
        offered = parts_of(self._layer, given.call, given.past, given.choices)
        outs = []
        for rows, alike in grouped(self._parts(offered, given), to.shape[1]):
            normed = self._normed(seen[:, rows], given, alike)
            for part in alike:
                out = part.run(normed)
                add_to(to[:, rows], dropped(out.y, keep, rows, self._rate))
                outs.append(without_y(out))
        return outs[0] if offered is None else together(outs)

    def take(self, streams: Streams, gradients: Streams, given: Given, wanted: Wanted) -> None:
        """Undo `add`, and turn the gradients of both streams after it into those before it, all of it in place."""
        to, seen = streams
        keep = self._keep(to)
        offered = parts_of(self._layer, given.call, given.past, given.choices)
        for rows, alike in grouped(self._parts(offered, given), to.shape[1]):
            normed = self._normed(seen[:, rows], given, alike)
            taken = Taken(to[:, rows], gradients.to[:, rows], None if keep is None else keep[:, rows], self._rate)
            upstream: Tensor | None = None
            for part in alike:
                slope = self._take_part(part, normed, taken, given.autocast, wanted)
                if slope is not None:
                    upstream = summed(upstream, slope, alone=len(alike) == 1)
            del normed
            if upstream is not None:
                self._through_norm(seen[:, rows], upstream, gradients.seen[:, rows], given, wanted.found)

    def _parts(self, offered: list[Part] | None, given: Given) -> list[Part]:
        """The parts of the layer, or all of it as one."""
        if offered is not None:
            return offered
        return [Part(slice(None), lambda x: self._layer(x, given.call, given.past, given.choices))]

    def _normed(self, seen: Tensor, given: Given, alike: Sequence[Part]) -> Tensor:
        """What the parts read. Where several share it, it is lowered for their products once, and not by each."""
        normed: Tensor = self._norm(seen.to(given.dtype))
        return given.autocast.lowered(normed) if len(alike) > 1 else normed

    def _keep(self, stream: Tensor) -> Tensor | None:
        """What residual dropout keeps, bool like the stream; one draw, so that parts with the same rows share it."""
        if not self._rate:
            return None
        return torch.empty_like(stream, dtype=torch.bool).bernoulli_(1 - self._rate)

    def _take_part(
        self, part: Part, normed: Tensor, taken: "Taken", autocast: Autocast, wanted: Wanted
    ) -> Tensor | None:
        """Undo one part; gives the gradient of what it has read."""
        leaf = normed.detach().requires_grad_()
        with torch.enable_grad():
            out = part.run(leaf)
            ends = {"": TakeOut.apply(out.y, taken), **out.losses}
            del out  # its output is in the stream now, and is not needed to go back
        ends = {name: end for name, end in ends.items() if end.requires_grad}
        if not ends:
            return None
        upstream = [wanted.slopes[name] if name else torch.ones_like(end) for name, end in ends.items()]
        own = [*learned(self._layer), *wanted.others]
        with autocast.off():
            slope, *others = torch.autograd.grad(list(ends.values()), [leaf, *own], upstream, allow_unused=True)
        wanted.found.add(own, others)
        return slope

    def _through_norm(self, seen: Tensor, upstream: Tensor, gradient: Tensor, given: Given, found: Gradients) -> None:
        """Add to the gradient of the stream what reaches it through the norm, some tokens at a time."""
        own = learned(self._norm)
        for rows in pieces(seen.shape[1], max(1, NORMED // (seen.shape[0] * seen.shape[2]))):
            leaf = seen[:, rows].detach().to(given.dtype).requires_grad_()
            with torch.enable_grad():
                normed = self._norm(leaf)
            with given.autocast.off():
                given_back = upstream[:, rows].to(normed.dtype)
                slope, *others = torch.autograd.grad(normed, [leaf, *own], given_back, allow_unused=True)
            gradient[:, rows].add_(slope)
            found.add(own, others)


class Taken(NamedTuple):
    """The rows of a stream that an output is taken out of again, their gradient, and what dropout keeps of them."""

    stream: Tensor
    gradient: Tensor
    keep: Tensor | None
    rate: float


class TakeOut(torch.autograd.Function):
    """Takes an output out of its stream as soon as it is made, and hands it the stream's gradient on the way back.

    So the output need not be kept until the gradient is asked for, as it would be if it were itself differentiated.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, taken: Taken) -> Tensor:
        ctx.taken, ctx.dtype = taken, y.dtype
        add_to(taken.stream, dropped(y, taken.keep, slice(None), taken.rate), sign=-1)
        return y.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor, None]:
        taken: Taken = ctx.taken
        return dropped(taken.gradient.to(ctx.dtype), taken.keep, slice(None), taken.rate), None


def dropped(y: Tensor, keep: Tensor | None, rows: slice, rate: float) -> Tensor:
    """y with what dropout does not keep at 0, and the rest scaled up."""
    return y if keep is None else (y * keep[:, rows]).div_(1 - rate)


def learned(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a gradient is wanted for."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
