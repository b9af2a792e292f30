"""Work along a sequence, piece by piece with something handed on, of which the backward pass makes each piece again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.native import kept
from formers.parts import pieces

Tensors = tuple[Tensor, ...]
# (what all pieces share, a piece of what goes along the sequence, what the piece before hands on)
# -> the piece's output and what it hands on.
Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensor, Tensors]]


def in_pieces(step: Step, size: int, shared: Tensors, along: Tensors, handed: Tensors) -> tuple[Tensor, Tensors]:
    """The outputs (B, H, T, E) of all pieces of `size` tokens, in order, and what the last one hands on.

    along: (B, H, T, ...) each, cut at the third axis. What a step makes exists for one piece at a time, forwards and
    backwards; kept for the backward pass are the inputs, and what each piece was handed. A step is run twice, so it must
    not draw random numbers.
    """
    if along[0].shape[2] <= size and not torch.is_grad_enabled():
        return step(shared, along, handed)
    out, *after = _InPieces.apply(Work(step, size, len(shared), len(along)), *shared, *along, *handed)
    return out, tuple(after)


class Work(NamedTuple):
    """What is done with all pieces, and how many of the tensors, in their order, are shared and go along."""

    step: Step
    size: int
    shared: int
    along: int

    def sorts(self, items: Sequence[Any]) -> tuple[Any, Any, Any]:
        """What is shared, goes along, and is handed on."""
        end = self.shared + self.along
        return tuple(items[: self.shared]), tuple(items[self.shared : end]), tuple(items[end:])

    def gradients(self, inputs: Sequence[Tensor], needed: Sequence[bool], upstream: Sequence[Tensor]) -> list[Any]:
        """Those of one piece, which is made again; None where a gradient is not needed."""
        pairs = zip(inputs, needed, strict=True)
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(need) for t, need in pairs]
            out, after = self.step(*self.sorts(leaves))
        return gradients((out, *after), upstream, leaves)


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Work, *tensors: Tensor) -> Any:
        shared, along, handed = work.sorts(tensors)
        length = along[0].shape[2]
        out, before = along[0].new_empty(0), []
        for piece in pieces(length, work.size):
            before.append(handed)
            made, handed = work.step(shared, _cut(along, piece), handed)
            if not out.numel():
                out = room_for(made, length)
            out[:, :, piece] = made
        ctx.work, ctx.count = work, len(before)
        ctx.save_for_backward(*shared, *along, *(t for each in before for t in each))
        return out, *handed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *handed: Any) -> Any:
        work: Work = ctx.work
        shared, along, before = work.sorts(ctx.saved_tensors)
        each = len(before) // ctx.count
        # What is handed on is asked for wherever a gradient can come to it: earlier pieces may need it.
        needed = [
            *ctx.needs_input_grad[1 : 1 + len(shared) + len(along)],
            *(t.is_floating_point() for t in before[:each]),
        ]
        of_shared, of_along, _ = work.sorts(needed)
        sums = [torch.zeros_like(t) if need else None for t, need in zip(shared, of_shared, strict=True)]
        whole = [room_for(t, t.shape[2]) if need else None for t, need in zip(along, of_along, strict=True)]
        for number, piece in reversed(list(enumerate(pieces(along[0].shape[2], work.size)))):
            inputs = [*shared, *_cut(along, piece), *before[number * each : (number + 1) * each]]
            found = work.sorts(work.gradients(inputs, needed, (upstream[:, :, piece], *handed)))
            for total, part in zip(sums, found[0], strict=True):
                if total is not None:
                    total += part
            for room, part in zip(whole, found[1], strict=True):
                if room is not None:
                    room[:, :, piece] = part
            handed = found[2]
        return None, *sums, *whole, *handed


def gradients(
    made: Sequence[Tensor | None], upstream: Sequence[Tensor | None], leaves: Sequence[Tensor]
) -> list[Tensor | None]:
    """By each leaf, those of what was made of the leaves; None where a leaf needs none."""
    roots = [(t, g) for t, g in zip(made, upstream, strict=True) if g is not None and t is not None and t.requires_grad]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not roots or not wanted:
        return [None] * len(leaves)
    ends, given = zip(*roots, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, given, materialize_grads=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


def _cut(tensors: Tensors, piece: slice) -> Tensors:
    return tuple(t[:, :, piece] for t in tensors)


def room_for(like: Tensor, length: int) -> Tensor:
    """Room for (B, H, T, ...) in which the heads of a token stand side by side, as the products before and behind have
    them."""
    batch, heads, _, *rest = like.shape
    return kept.new_empty(like, (batch, length, heads, *rest)).transpose(1, 2)
