"""Heads: from the last hidden state to logits over the vocabulary."""

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.feedforward import ACTIVATIONS, Activation
from formers.init import LogitLinear
from formers.norm import LayerNorm
from formers.products import Matrix, linear
from formers.spec.core import Site, Spec


class Head(Spec):
    """Built to a module: (hidden (..., M), table (V, M) of the embedding) -> logits (..., V).

    One that is not the same in every call has a method drawn(call) -> module, the head that this call reads by.
    """

    @property
    def tied(self) -> bool:
        """Whether it multiplies by the table, and so must be as wide as the embedding."""
        return False

    def build(self, site: Site) -> nn.Module:
        raise NotImplementedError


def head_of(head: nn.Module | None, call: Call) -> nn.Module | None:
    """The head that a call reads by, the same for all its tokens."""
    draw = getattr(head, "drawn", None)
    return head if draw is None else draw(call)


class Tied(Head):
    """The embedding's own table. Press and Wolf 2017, arXiv:1608.05859. bias: a free bias for each token."""

    bias: bool = False

    @property
    def tied(self) -> bool:
        return True

    def build(self, site: Site) -> nn.Module:
        return TiedLayer(self, site)


class TiedLayer(nn.Module):
    def __init__(self, spec: Tied, site: Site) -> None:
        super().__init__()
        self.bias = zeros(site.vocab) if spec.bias else None

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        return linear(hidden, table, self.bias)


class Untied(Head):
    """A matrix of its own."""

    bias: bool = False

    def build(self, site: Site) -> nn.Module:
        return UntiedLayer(self, site)


class UntiedLayer(nn.Module):
    def __init__(self, spec: Untied, site: Site) -> None:
        super().__init__()
        self.proj = LogitLinear(site.dim, site.vocab, bias=spec.bias)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        return self.proj(hidden)


class MaskedLM(Head):
    """BERT's head: dense, activation, LayerNorm, then the tied table and a free bias. arXiv:1810.04805."""

    activation: Activation = "gelu"
    eps: float = 1e-12

    @property
    def tied(self) -> bool:
        return True

    def build(self, site: Site) -> nn.Module:
        return MaskedLMLayer(self, site)


class MaskedLMLayer(nn.Module):
    def __init__(self, spec: MaskedLM, site: Site) -> None:
        super().__init__()
        self.proj = Matrix(site.dim, site.dim)
        self.activation = ACTIVATIONS[spec.activation]
        self.norm = LayerNorm(eps=spec.eps).build(site)
        self.bias = zeros(site.vocab)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        return linear(self.norm(self.activation(self.proj(hidden))), table, self.bias)


def zeros(*shape: int) -> nn.Parameter:
    """A parameter that begins at 0."""
    return nn.Parameter(torch.zeros(*shape))


class Pooler(Spec):
    """Classes of the whole input from its first token: dense, tanh, dense. BERT's next-sentence head has 2 of them.

    classes: None leaves the last product out, and gives the vector that classes would be told from.
    """

    classes: int | None = 2

    def build(self, site: Site) -> nn.Module:
        return PoolerLayer(self, site)


class PoolerLayer(nn.Module):
    def __init__(self, spec: Pooler, site: Site) -> None:
        super().__init__()
        self.proj = Matrix(site.dim, site.dim)
        self.classes = Matrix(site.dim, spec.classes) if spec.classes is not None else None

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (B, T, M) -> (B, classes), or (B, M) without classes."""
        vector = self.proj(hidden[:, 0]).tanh()
        return vector if self.classes is None else self.classes(vector)
