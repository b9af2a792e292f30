"""The loss over pieces of the sequence: the logits of one piece exist at a time."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.replay import Autocast
from formers.tasks.halting import halting_loss, judge
from formers.tasks.loss import summed_nats
from formers.train.task import Loss

Read = Callable[[Tensor], Tensor]


def lost(
    model: Any,
    targets: Tensor,
    *inputs: Tensor,
    chunk: int | None = None,
    smoothing: float = 0.0,
    remember: bool = False,
    **named: Any,
) -> Loss:
    """What a model loses on targets, (B, T) or those at `logits_at`, given its inputs.

    chunk: how many targets have their logits at a time, None: all. smoothing: see `summed_nats`. remember: whether there
    is to be a state that goes on from here. A model that can be left early loses at each of its exits, by its weights.
    """
    if chunk is None:
        out = model(*inputs, **named, remember=remember)
        nats = summed_nats(out.logits, targets, smoothing)
        early = [summed_nats(logits, targets, smoothing) for logits in out.exits.found] if out.exits else []
    else:
        out = model(*inputs, **named, remember=remember, loss=ChunkedNats(targets, chunk, smoothing))
        nats, early = out.nats, [*out.exits.found] if out.exits else []
    losses = out.losses
    if out.exits:
        nats = (out.exits.weights * torch.stack([*early, nats])).sum()
        losses = {**losses, **halting_loss(out, targets, named.get("logits_at"))}
    return Loss(nats, losses, out.records, out.state if remember else None)


class ChunkedNats:
    """`summed_nats` of the targets, `chunk` of them at a time; a `StreamLoss`.

    The gradients of the stream and of the parameters that make logits of it are worked out together with the loss, so
    that neither logits nor the normalised stream exist as a whole, and the stream itself is not kept. One backward pass
    uses them up.
    """

    def __init__(self, targets: Tensor, chunk: int, smoothing: float = 0.0) -> None:
        self._targets, self._chunk, self._smoothing = targets, chunk, smoothing

    @torch.compiler.disable
    def __call__(self, stream: Tensor, read: Read, parameters: Sequence[Tensor]) -> Tensor:
        """Raises ValueError unless there is one target for each place of the stream."""
        if stream.shape[:-1] != self._targets.shape:
            raise ValueError(
                f"targets {tuple(self._targets.shape)} do not fit places {tuple(stream.shape[:-1])}: give one for each"
            )
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        if not torch.is_grad_enabled() or not (stream.requires_grad or learned):
            return self.total(stream, read)
        nats: Tensor = _Chunked.apply(self, read, stream, *learned)
        return nats

    @torch.compiler.disable
    @torch.no_grad()
    def judge(self, stream: Tensor, read: Read) -> tuple[Tensor, Tensor]:
        """log p of each target (...), and whether it is the likeliest token, without a gradient."""
        pieces = zip(stream.flatten(0, -2).split(self._chunk), self._targets.flatten().split(self._chunk), strict=True)
        likelihood, right = zip(*(judge(read(piece), targets) for piece, targets in pieces), strict=True)
        return torch.cat(likelihood).view(self._targets.shape), torch.cat(right).view(self._targets.shape)

    def total(self, stream: Tensor, read: Read, gradients: "_Gradients | None" = None) -> Tensor:
        """The nats of all pieces; their gradients, if wanted, are left in `gradients`."""
        exact = torch.promote_types(stream.dtype, torch.float32)
        total = torch.zeros((), dtype=exact, device=stream.device)
        rows, targets = stream.reshape(-1, stream.shape[-1]), self._targets.reshape(-1)
        autocast = Autocast(stream.device)
        with autocast.again():
            for start in range(0, len(rows), self._chunk):
                piece = slice(start, start + self._chunk)
                leaf = rows[piece].detach()
                with _watched(gradients, leaf):
                    nats = summed_nats(read(leaf), targets[piece], self._smoothing)
                total += nats.detach()
                if gradients is not None:
                    with autocast.off():
                        gradients.add(nats, leaf, piece)
        return total


class _Gradients:
    """Of the stream, and of the parameters, summed over the pieces."""

    def __init__(self, stream: Tensor, parameters: Sequence[Tensor]) -> None:
        wanted = stream.requires_grad
        self.stream = torch.empty_like(stream, memory_format=torch.contiguous_format) if wanted else None
        self.parameters: list[Tensor | None] = [None] * len(parameters)
        self._of = parameters

    def add(self, nats: Tensor, leaf: Tensor, piece: slice) -> None:
        """Those of one piece's nats."""
        ends = [*self._of] if self.stream is None else [*self._of, leaf]
        found = list(torch.autograd.grad(nats, ends, allow_unused=True))
        if self.stream is not None:
            self.stream.view(-1, self.stream.shape[-1])[piece] = found.pop()
        for i, gradient in enumerate(found):
            if gradient is not None:
                total = self.parameters[i]
                exact = torch.promote_types(gradient.dtype, torch.float32)
                self.parameters[i] = gradient.to(exact, copy=True) if total is None else total.add_(gradient)


def _watched(gradients: _Gradients | None, leaf: Tensor) -> AbstractContextManager[object]:
    if gradients is None:
        return torch.no_grad()
    leaf.requires_grad_(gradients.stream is not None)
    return torch.enable_grad()


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: ChunkedNats, read: Read, stream: Tensor, *parameters: Tensor) -> Tensor:
        gradients = _Gradients(stream, parameters)
        total = loss.total(stream, read, gradients)
        ctx.dtypes = [parameter.dtype for parameter in parameters]
        ctx.save_for_backward(gradients.stream, *gradients.parameters)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        stream, *parameters = ctx.saved_tensors
        scaled = [None if total is None else total.mul_(upstream) for total in parameters]
        found = [total if total is None else total.to(dtype) for total, dtype in zip(scaled, ctx.dtypes, strict=True)]
        return None, None, None if stream is None else stream.mul_(upstream), *found
