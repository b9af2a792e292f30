"""How parameters begin. Parts set their own odd parameters; an Init sets every Linear and Embedding of a model."""

import math
from collections.abc import Iterator

from torch import nn

from formers.spec.core import Site, Spec


class ResidualLinear(nn.Linear):
    """The last product of a sublayer, whose output joins the residual stream: some initialisations scale it down."""


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
