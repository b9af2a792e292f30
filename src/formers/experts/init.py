"""The small initialisation that lets sparse models train."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from formers.init import Init
from formers.spec.core import Site


class Truncated(Init):
    """A normal distribution of variance scale / inputs, cut off at two standard deviations, for every matrix; biases 0:
    Fedus et al. 2021, arXiv:2101.03961, section 2.4, where 0.1 trains steadily and the usual 1 does not.

    Token vectors and tables of positions N(0, dim^-0.5). Layers of experts begin so by themselves, by their own `scale`.
    """

    scale: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.scale <= 0:
            yield f"weights are drawn with a variance of {self.scale} / inputs, which must be positive", "scale=0.1"

    def apply(self, model: nn.Module, dim: int) -> None:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                truncated_(module.weight, self.scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=dim**-0.5)


def truncated_(weight: torch.Tensor, scale: float) -> None:
    """Fill (..., outputs, inputs) in place as `Truncated` says."""
    std = math.sqrt(scale / weight.shape[-1])
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
