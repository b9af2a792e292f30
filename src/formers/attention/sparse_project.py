"""The other sparse projections: four layers of one kind for queries, keys, values and output."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention.mult_conv import PreparedLayer, kernel_problems, module_problems, whole_width_problems
from formers.attention.project import Projection, ProjectionLayer, join_heads, split_heads
from formers.places import Places
from formers.sparse.convolution import ModuleConv, unbroken
from formers.sparse.low_rank import LowRankLinear
from formers.sparse.modular import ModularLinear
from formers.sparse.multiplicative import Begin, MultiplicativeLinear
from formers.spec.core import Site


class FourAlike(Projection):
    """A layer each for queries, keys, values and output, all of one kind, each token by itself."""

    def layer(self, inputs: int, outputs: int, site: Site) -> nn.Module:
        """(..., inputs) -> (..., outputs)."""
        raise NotImplementedError

    def build(self, site: Site) -> ProjectionLayer:
        return FourAlikeLayer(self, site)


class FourAlikeLayer(ProjectionLayer):
    """q_proj, k_proj, v_proj, out_proj."""

    def __init__(self, spec: FourAlike, site: Site) -> None:
        super().__init__()
        self.head_dim, self.group = site.head_dim, site.heads // site.kv_heads
        wide, narrow = site.heads * site.head_dim, site.kv_heads * site.head_dim
        self.q_proj = spec.layer(site.dim, wide, site)
        self.k_proj, self.v_proj = (spec.layer(site.dim, narrow, site) for _ in range(2))
        self.out_proj = spec.layer(wide, site.dim, site)

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.q_proj(x), self.head_dim)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self.k_proj(x), self.head_dim), split_heads(self.v_proj(x), self.head_dim)

    def output(self, heads: Tensor) -> Tensor:
        y: Tensor = self.out_proj(join_heads(heads))
        return y

    def share(self, heads: slice) -> ProjectionLayer:
        return FourAlikeShare(self, heads)


class FourAlikeShare(ProjectionLayer):
    """Some heads of it, where its layers have `rows` and `columns`; it owns no parameters."""

    def __init__(self, whole: FourAlikeLayer, heads: slice) -> None:
        super().__init__()
        self._whole = (whole,)  # not as a module: its parameters are not these heads' alone
        keys = slice(heads.start // whole.group, -(-heads.stop // whole.group))
        self._own, self._keys = (slice(s.start * whole.head_dim, s.stop * whole.head_dim) for s in (heads, keys))

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (whole,) = self._whole
        wanted: tuple[tuple[Any, slice], ...] = (
            (whole.q_proj, self._own),
            (whole.k_proj, self._keys),
            (whole.v_proj, self._keys),
        )
        q, k, v = (split_heads(layer.rows(x, part), whole.head_dim) for layer, part in wanted)
        return q, k, v

    def output(self, heads: Tensor) -> Tensor:
        out: Any = self._whole[0].out_proj
        y: Tensor = out.columns(join_heads(heads), self._own)
        return y


class Multiplicative(FourAlike):
    """Four multiplicative layers of `modules` modules, None: as many as heads. arXiv:2111.12763. init: see `Begin`."""

    modules: int | None = None
    init: Begin = "fan"

    def splits(self, site: Site) -> bool:
        """Where heads are whole modules."""
        return (self.modules or site.heads) % site.heads == 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from both_ends_problems(self.modules, site)

    def layer(self, inputs: int, outputs: int, site: Site) -> nn.Module:
        return MultiplicativeLinear(inputs, outputs, self.modules or site.heads, init=self.init)


class MultiplicativeModular(FourAlike):
    """Four multiplicative layers, each followed by a small matrix for each module. arXiv:2111.12763, code.

    modules: None: as many as heads. init: see `Begin`.
    """

    modules: int | None = None
    init: Begin = "fan"

    def splits(self, site: Site) -> bool:
        return False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from both_ends_problems(self.modules, site)

    def layer(self, inputs: int, outputs: int, site: Site) -> nn.Module:
        modules = self.modules or site.heads
        mult = MultiplicativeLinear(inputs, outputs, modules, bias=False, init=self.init)
        return nn.Sequential(mult, ModularLinear(outputs, outputs, modules, init=self.init))


class Modular(FourAlike):
    """Four layers in which a module sees the `width` nearest ones, in a circle, by weights of its own. arXiv:2111.12763,
    code. modules: None: as many as heads. init: see `Begin`."""

    modules: int | None = None
    width: int = 1
    init: Begin = "fan"

    def splits(self, site: Site) -> bool:
        return False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from both_ends_problems(self.modules, site)
        yield from circle_problems(self.width, self.modules or site.heads)

    def layer(self, inputs: int, outputs: int, site: Site) -> nn.Module:
        return ModularLinear(inputs, outputs, self.modules or site.heads, self.width, init=self.init)


class LowRank(FourAlike):
    """Four products through a middle of `rank` numbers. arXiv:2111.12763, code. init: see `Begin`."""

    rank: int = 64
    init: Begin = "fan"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.rank < 1:
            yield f"nothing passes a middle of {self.rank} numbers", "rank=64"

    def layer(self, inputs: int, outputs: int, site: Site) -> nn.Module:
        return LowRankLinear(inputs, outputs, self.rank, init=self.init)


class Convolutional(Projection):
    """Four convolutions over time and neighbouring modules, and nothing that mixes all of a vector. arXiv:2111.12763,
    code. modules: None: as many as heads. length, width: of the kernels, in tokens and modules. init: see `Begin`."""

    modules: int | None = None
    length: int = 1
    width: int = 1
    init: Begin = "fan"

    @property
    def across(self) -> bool:
        return False

    @property
    def output_looks_back(self) -> bool:
        return True

    def splits(self, site: Site) -> bool:
        return False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from whole_width_problems(site)
        yield from module_problems(self.modules, site.dim, site)
        yield from kernel_problems(self.length, self.width)

    def build(self, site: Site) -> ProjectionLayer:
        return ConvolutionalLayer(self, site)


class ConvolutionalLayer(PreparedLayer):
    """q_conv, k_conv, v_conv, out_conv."""

    def __init__(self, spec: Convolutional, site: Site) -> None:
        dim, modules, kernel = site.dim, spec.modules or site.heads, (spec.length, spec.width)
        super().__init__(site, "none", "conv", dim, modules, kernel, spec.init)
        self.q_conv, self.k_conv, self.v_conv = (
            ModuleConv(dim, dim, modules, *kernel, init=spec.init) for _ in range(3)
        )

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        met = unbroken(x, at, past, self.q_conv.back)
        convolved = [conv(met.rows) for conv in (self.q_conv, self.k_conv, self.v_conv)]
        return met.put_back(torch.cat(convolved, -1)), met.tail


def both_ends_problems(modules: int | None, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with modules that both the stream and the heads side by side must split into."""
    if site.kv_heads != site.heads:
        what = f"{site.heads} heads have keys made module by module, and cannot share {site.kv_heads} key heads"
        yield what, "kv_heads=None"
    for numbers in sorted({site.dim, site.heads * site.head_dim}):
        yield from module_problems(modules, numbers, site)


def circle_problems(width: int, modules: int) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of neighbours in a circle of modules."""
    if width < 1 or width % 2 == 0 or width > modules:
        yield f"of {modules} modules in a circle, {width} have no middle one", "width=1"
