"""Returns, observations and actions as tokens, three for each step of an environment; and actions out of what they become.

Chen et al. 2021, arXiv:2106.01345, section 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.control.spaces import Choices, Numbers, Space
from formers.init import LogitLinear
from formers.norm import LayerNorm, Norm
from formers.products import Matrix
from formers.residual import dropout_problems
from formers.spec.core import Site, Spec

# The tokens of a step, in their order: the return that is left, the observation, the action.
TOKENS, SEEN = 3, 1


class StepEmbedding(Spec):
    """Three tokens for each step: the return that is left, what is observed, and the action that is taken.

    Numbers by a matrix, choices by a table, and to all three of a step the learned vector of its number in the episode, of
    which there are `horizon`. return_scale: what returns are divided by before (1000 in the paper's Gym runs).
    norm: of the tokens, before the first block. dropout: rate at which their channels are dropped behind it.
    """

    observation: Space
    action: Space
    horizon: int = 1000
    return_scale: float = 1.0
    norm: Norm = LayerNorm()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for name in ("observation", "action"):
            if not isinstance(getattr(self, name), (Numbers, Choices)):
                yield f"the {name} is of no kind that can be embedded: {getattr(self, name)!r}", f"{name}=Choices(2)"
        if self.horizon < 1:
            yield f"episodes of {self.horizon} steps have no step", "horizon=1000"
        if self.return_scale <= 0:
            yield f"returns are divided by {self.return_scale}, which must be positive", "return_scale=1.0"
        yield from dropout_problems(self.dropout)

    def build(self, site: Site) -> "StepEmbeddingLayer":
        return StepEmbeddingLayer(self, site)


class StepEmbeddingLayer(nn.Module):
    def __init__(self, spec: StepEmbedding, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.returns = Matrix(1, site.dim)
        self.observations = reader_of(spec.observation, site.dim)
        self.actions = reader_of(spec.action, site.dim)
        self.steps = nn.Embedding(spec.horizon, site.dim)
        self.norm = spec.norm.build(site)

    def left(self, returns: Tensor) -> Tensor:
        """returns (B, T) -> (B, T, M)."""
        scaled = returns.to(self.returns.weight.dtype) / self.spec.return_scale
        y: Tensor = self.returns(scaled[..., None])
        return y

    def finish(self, tokens: Tensor) -> Tensor:
        """What the first block reads of tokens (B, T, M) that their steps have been added to."""
        y: Tensor = self.norm(tokens)
        return F.dropout(y, self.spec.dropout) if self.training and self.spec.dropout else y


def reader_of(space: Space, dim: int) -> nn.Module:
    """From elements of a space to vectors (..., M)."""
    if isinstance(space, Choices):
        return nn.Embedding(space.count, dim)
    assert isinstance(space, Numbers)
    return NumbersReader(space.width, dim)


class NumbersReader(nn.Module):
    """A matrix behind a shift and a scale for each number, which belong to the data and are kept with the parameters."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = Matrix(width, dim)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Read numbers as differences from a mean in units of a deviation, (width,) each."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, numbers: Tensor) -> Tensor:
        y: Tensor = self.linear((numbers.to(self.mean.dtype) - self.mean) / self.deviation)
        return y


class ActionHead(Spec):
    """From hidden states to actions: a logit for each choice, or the numbers themselves, by a tanh within their bounds."""

    action: Space

    def build(self, site: Site) -> "ActionHeadLayer":
        return ActionHeadLayer(self, site)


class ActionHeadLayer(nn.Module):
    low: Tensor | None
    high: Tensor | None

    def __init__(self, spec: ActionHead, site: Site) -> None:
        super().__init__()
        space = spec.action
        self.linear = LogitLinear(site.dim, space.count if isinstance(space, Choices) else space.shape[0])
        for name in ("low", "high"):
            bound = getattr(space, name, None)
            self.register_buffer(name, None if bound is None else torch.tensor(bound), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (..., M) -> (..., count) logits or (..., width) numbers."""
        y: Tensor = self.linear(hidden)
        if self.low is None or self.high is None:
            return y
        return self.low + (self.high - self.low) * (torch.tanh(y) + 1) / 2
