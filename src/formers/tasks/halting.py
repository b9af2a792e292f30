"""The loss of those who decide where tokens halt: what an oracle would have said. Elbayad et al. 2020, arXiv:1910.10073."""

from collections.abc import Sequence

import torch
from torch import Tensor

from formers.exits.halting.oracles import Judged
from formers.output import Output
from formers.tokens import At


def halting_loss(out: Output, targets: Tensor, at: At) -> dict[str, Tensor]:
    """The loss "halting" of an output with the logits, or the judgement, of every exit; nothing where no rule learns so.

    targets: (B, T') at a slice of places, or (N,) at a mask (B, T); None: at all places.
    """
    if out.exits is None or out.exits.halts is None:
        return {}
    halts, judged = out.exits.halts, out.exits.judged
    if not judged:
        assert out.logits is not None
        judged = tuple(judge(logits, targets) for logits in (*out.exits.found, out.logits))
    real = _predicted(at, (halts.log_q.shape[0], halts.pos.shape[1]), targets.device)
    likelihood, right = (_in_rows(each, real) for each in zip(*judged, strict=True))
    return {"halting": halts.loss(Judged(likelihood, right, halts.pos, real))}


@torch.no_grad()
def judge(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each target (...) in fp32 or better, and whether it is the likeliest of its logits (..., V)."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    told = logits.gather(-1, targets[..., None])[..., 0].to(exact)
    return told - logits.to(exact).logsumexp(-1), logits.argmax(-1) == targets


def _predicted(at: At, shape: tuple[int, int], device: torch.device) -> Tensor:
    """(B, T) bool: the places that are predicted at."""
    if isinstance(at, Tensor):
        return at
    real = torch.zeros(shape, dtype=torch.bool, device=device)
    real[:, slice(None) if at is None else at] = True
    return real


def _in_rows(each: Sequence[Tensor], real: Tensor) -> Tensor:
    """What is known of each exit at the targets, (...) each, as (B, T, N); 0 where there is no target."""
    told = torch.stack(tuple(each), -1).flatten(0, -2)
    rows = told.new_zeros(*real.shape, told.shape[-1])
    rows[real] = told
    return rows
