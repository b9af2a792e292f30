"""Sublayers side by side: they read the same input, and what they put out is summed."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.block import collect
from formers.call import Call, Layer, Out, skip
from formers.norm import Norm
from formers.spec.core import Site


class Parallel(Layer):
    """Layers that read the same input (B, T, M) and whose outputs (B, T, M) are summed.

    The output product of attention is a sum over its heads. So two attentions with half of the heads each, their
    head_dim given, are one whose heads differ: half of them local, say, and half routed.

    norm: each layer reads the input through a norm of its own; a PreNorm block then gives them the stream as it is.
    """

    layers: tuple[Layer, ...]
    norm: Norm | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.layers:
            yield "no layers stand side by side here, which gives nothing", "layers=(Attention(4), Attention(4))"
        widths = {layer.out_dim(site.dim) for layer in self.layers}
        if len(widths) > 1:
            yield f"outputs of {sorted(widths)} numbers for each token cannot be summed", 'merge="mean"'

    @property
    def norms_itself(self) -> bool:
        return self.norm is not None

    def out_dim(self, dim: int) -> int:
        return self.layers[0].out_dim(dim) if self.layers else dim

    def build(self, site: Site) -> nn.Module:
        return ParallelLayer(self, site)


class ParallelLayer(nn.Module):
    def __init__(self, spec: Parallel, site: Site) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer.build(site.part(i)) for i, layer in enumerate(spec.layers))
        self.norms = nn.ModuleList(spec.norm.build(site) if spec.norm else nn.Identity() for _ in spec.layers)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        none = (None,) * len(self.layers)
        parts = zip(self.layers, self.norms, state or none, choices or none, strict=True)
        outs = [layer(norm(x), call, past, chosen) for layer, norm, past, chosen in parts]
        total = outs[0].y
        for out in outs[1:]:
            total = total + out.y
        return collect(total, outs, call)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> tuple[Any, ...]:
        """The state of each layer after tokens that are carried past all of them."""
        pasts = state or (None,) * len(self.layers)
        parts = zip(self.layers, self.norms, pasts, strict=True)
        return tuple(skip(layer, norm(x), call, past) for layer, norm, past in parts)
