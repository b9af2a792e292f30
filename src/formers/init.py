"""How parameters begin. Parts set their own odd parameters; an Init sets every Linear and Embedding of a model."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from formers.products import Matrix
from formers.spec.core import Site, Spec


class ResidualLinear(Matrix):
    """The last product of a sublayer, whose output joins the residual stream: some initialisations scale it down."""


class LogitLinear(Matrix):
    """The product that tells logits: some initialisations begin it at 0."""


class Init(Spec):
    """Sets the parameters of a freshly built model in place."""

    def apply(self, model: nn.Module, dim: int) -> None:
        raise NotImplementedError


class Normal(Init):
    """N(0, std) for weights and embeddings, 0 for biases: GPT and BERT (Devlin et al. 2018, arXiv:1810.04805).

    depth_scaled: the last product of each of n residual sublayers gets std / sqrt(n) (Radford et al. 2019, GPT-2).
    """

    std: float = 0.02
    depth_scaled: bool = False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.std <= 0:
            yield f"a standard deviation must be positive, got {self.std}", "std=0.02"

    def apply(self, model: nn.Module, dim: int) -> None:
        modules = list(model.modules())
        writers = sum(isinstance(module, ResidualLinear) for module in modules)
        for module in modules:
            if isinstance(module, (nn.Linear, nn.Embedding)):
                scaled = self.depth_scaled and isinstance(module, ResidualLinear)
                nn.init.normal_(module.weight, std=self.std / math.sqrt(writers) if scaled else self.std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Xavier(Init):
    """Glorot and Bengio 2010 for weights, N(0, dim^-0.5) for embeddings, 0 for biases: the 2017 Transformer."""

    def apply(self, model: nn.Module, dim: int) -> None:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=dim**-0.5)


class FanIn(Init):
    """N(0, gain / sqrt(inputs)) for weights, as Sparse Transformers hundreds of layers deep begin: Child et al. 2019,
    arXiv:1904.10509, section 6.

    The last product of each of n residual sublayers gets 1 / sqrt(n) of that, so that the stream does not grow with depth;
    token vectors N(0, gain / sqrt(dim)), the position's, of which `tables` are added, N(0, gain / sqrt(dim tables)); the
    product that tells logits 0, and so do biases.
    """

    gain: float = 0.125

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.gain <= 0:
            yield f"weights are drawn at {self.gain} / sqrt(inputs), which must be positive", "gain=0.125"

    def apply(self, model: nn.Module, dim: int) -> None:
        modules = list(model.modules())
        writers = sum(isinstance(module, ResidualLinear) for module in modules)
        tables = places_of(model)
        for module in modules:
            if isinstance(module, nn.Embedding):
                added = len(tables) if module in tables else 1
                nn.init.normal_(module.weight, std=self.gain / math.sqrt(module.embedding_dim * added))
            elif isinstance(module, nn.Linear):
                share = writers if isinstance(module, ResidualLinear) else 1
                std = 0.0 if isinstance(module, LogitLinear) else self.gain / math.sqrt(module.in_features * share)
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def places_of(model: Any) -> list[nn.Module]:
    """The tables of a model's absolute positions."""
    position = model.embedding.position
    return [] if position is None else [inner for inner in position.modules() if isinstance(inner, nn.Embedding)]
