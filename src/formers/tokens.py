"""From token ids to the places that they stand at, and from places to the ones that are predicted at."""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from formers.places import Places
from formers.spec.codec import mean

Seen = int | Tensor
At = slice | Tensor | None


def place(tokens: Tensor, seen: Seen, mask: Tensor | None, marks: Mapping[str, Tensor] | None) -> Places:
    """Where tokens (B, T) stand after `seen` real tokens of their row. Raises ValueError on shapes that do not fit."""
    if tokens.dim() != 2:
        raise ValueError(f"tokens must be (batch, length), got {tuple(tokens.shape)}: unsqueeze(0) a single sequence")
    for name, extra in {"mask": mask, **(marks or {})}.items():
        if extra is not None and extra.shape != tokens.shape:
            raise ValueError(
                f"{name} has shape {tuple(extra.shape)}, tokens have {tuple(tokens.shape)}: they must be equal"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True at real tokens, got {mask.dtype}: mask.bool()")
    if isinstance(seen, int) and (mask is None or bool(mask.all())):
        return Places.run(seen, tokens.shape[1], tokens.device, marks)
    if mask is None:
        steps = torch.arange(tokens.shape[1], device=tokens.device)[None]
        return Places(torch.as_tensor(seen)[:, None] + steps, None, marks)
    before = seen if isinstance(seen, int) else seen[:, None]
    return Places((before + mask.cumsum(1) - 1).clamp(min=0), mask, marks)


def require_read(marks: Iterable[str], read: Collection[str]) -> None:
    """Raise ValueError for a mark that is not among those that a model reads: it would be given in vain."""
    for mark in marks:
        if mark not in read:
            known = mean(mark, read) if read else "it reads none"
            raise ValueError(f"no part of this model reads a mark named {mark!r}: {known}")


def seen_after(seen: Seen, at: Places) -> Seen:
    """How many real tokens each row has seen after a call at these places."""
    return seen + (at.length if at.real is None else at.real.sum(1))


def chosen(hidden: Tensor, at: slice | Tensor) -> Tensor:
    """The hidden states (B, T, M) to predict at: (B, T', M) for a slice, (N, M) for a bool mask (B, T)."""
    return hidden[:, at] if isinstance(at, slice) else hidden[at]
