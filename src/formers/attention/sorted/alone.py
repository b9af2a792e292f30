"""Tokens that meet nobody but themselves, where that is charged so heavily that nothing else would be left of their score.

Beside a charge of -100,000, single precision keeps a score to one part in a hundred: rounds that are merged by such
scores, and gradients made of them, would be off by as much. So a token never meets itself here, and one that meets
nobody takes its own value as it is.
"""

from dataclasses import replace

from torch import Tensor

from formers.attention.sorted.charge import BAR, BARRED
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import Meeting

HEAVY = -1e4  # e to the power of this is nothing beside any other weight


def bar_self(meeting: Meeting) -> Meeting:
    """The same meeting without a token's meeting itself, where the charge on that is heavy."""
    return replace(meeting, self_bias=BAR) if meeting.self_bias <= HEAVY else meeting


def fall_back(out: Tensor, lse: Tensor, v: Tensor, real: Tensor | None, meeting: Meeting) -> None:
    """Give tokens that met nobody their own value, and the charge as their log-sum-exp, in place."""
    if meeting.self_bias > HEAVY:
        return
    alone = lse < BARRED if real is None else (lse < BARRED) & real[:, None]
    out[alone] = own(v, alone, meeting.drop)
    lse[alone] = meeting.self_bias


def own(x: Tensor, alone: Tensor, drop: Drop | None) -> Tensor:
    """x (B, H, S, E) of those that are alone (B, H, S), as dropout leaves it."""
    if drop is None:
        return x[alone]
    batch, heads, length = alone.shape
    words = drop.words(batch, heads, length, alone.device)[alone][:, None]
    return x[alone] * drop.apply(x.new_ones(len(words), 1), words, words)


def gradient_alone(lse: Tensor, charge: float) -> tuple[Tensor, Tensor]:
    """Log-sum-exps as if those had met nothing that `fall_back` gave their own value, and which they are."""
    alone = (lse == charge) & (charge <= HEAVY)
    return lse.masked_fill(alone, float("-inf")), alone
