"""Absolute positions, which enter at the embedding."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.errors import FormersError
from formers.places import Places
from formers.spec.core import Site, Spec


class AbsolutePosition(Spec):
    """A vector for each position, which joins the token's once, at the bottom of the model."""

    @property
    def max_length(self) -> int | None:
        """How many positions there are; None: any number."""
        return None

    def build(self, site: Site) -> "AbsoluteLayer":
        raise NotImplementedError


class AbsoluteLayer(nn.Module):
    """Built of a position: (token vectors x (B, T, M), call) -> x with the order of its tokens in it."""

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        """What stands at the places outside training, (1 or B, T, M)."""
        raise NotImplementedError

    def forward(self, x: Tensor, call: Call) -> Tensor:
        return x + self.vectors(self.placed(x, call), x.dtype)

    def placed(self, x: Tensor, call: Call) -> Places:
        """Where the tokens are taken to stand: training may begin somewhere else, by the seed of the call."""
        return call.at

    def read_by_row(self) -> list[Tensor]:
        """The tables among the parameters: of each a token reads one row."""
        return [inner.weight for inner in self.modules() if isinstance(inner, nn.Embedding)]


def sinusoid(pos: Tensor, dim: int, layout: str, dtype: torch.dtype) -> Tensor:
    """sin and cos of `pos` (any shape) at dim / 2 rates: (*pos.shape, dim)."""
    exact = torch.promote_types(dtype, torch.float32)
    rate = torch.exp(torch.arange(0, dim, 2, dtype=exact, device=pos.device) * (-math.log(10_000.0) / dim))
    angle = pos.to(exact)[..., None] * rate
    pair = (angle.sin(), angle.cos())
    table = torch.cat(pair, -1) if layout == "halves" else torch.stack(pair, -1).flatten(-2)
    return table.to(dtype)


class Sinusoidal(AbsolutePosition):
    """PE(p, 2i) = sin(p / 10000^(2i/dim)), PE(p, 2i+1) = cos of the same. Vaswani et al. 2017, arXiv:1706.03762.

    layout: "interleaved" as in the paper; "halves" puts all sines before all cosines, as Marian does.
    """

    layout: Literal["interleaved", "halves"] = "interleaved"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.dim % 2:
            yield f"sines and cosines come in pairs, but dim is {site.dim}", f"dim={site.dim + 1}"

    def build(self, site: Site) -> AbsoluteLayer:
        return SinusoidalLayer(self, site.dim)


class SinusoidalLayer(AbsoluteLayer):
    def __init__(self, spec: Sinusoidal, dim: int) -> None:
        super().__init__()
        self.spec, self.dim = spec, dim

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        return sinusoid(places.pos, self.dim, self.spec.layout, dtype)


class Learned(AbsolutePosition):
    """A learned vector for each of `length` positions, as in GPT and BERT (arXiv:1810.04805)."""

    length: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.length < 1:
            yield f"a table of {self.length} positions holds nothing", "length=1024"

    @property
    def max_length(self) -> int:
        return self.length

    def build(self, site: Site) -> AbsoluteLayer:
        return LearnedLayer(self, site.dim)


class LearnedLayer(AbsoluteLayer):
    def __init__(self, spec: Learned, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.length, dim)

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.table.num_embeddings)
        if places.start is not None:
            return self.table.weight[None, places.start : places.start + places.length].to(dtype)
        return self.table(places.pos.clamp(max=self.table.num_embeddings - 1)).to(dtype)


class Axial(AbsolutePosition):
    """Position p as its digits in the mixed radix `shape`, one learned table a digit, concatenated to width dim.

    Ho et al. 2019, arXiv:1912.12180, as used by Reformer (Kitaev et al. 2020, arXiv:2001.04451, footnote 1): a table
    of l1 * l2 positions costs l1 * d1 + l2 * d2 numbers, d1 + d2 = dim. Any length up to the product of the shape;
    Differs from the paper: no need to fill it.
    """

    shape: tuple[int, ...]
    dims: tuple[int, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if len(self.shape) != len(self.dims) or not self.shape or min(self.shape) < 1 or min(self.dims) < 1:
            what = f"shape {self.shape} and dims {self.dims} must name one length and one width for each axis"
            yield what, f"shape=(64, 64), dims=({site.dim // 2}, {site.dim - site.dim // 2})"
        elif sum(self.dims) != site.dim:
            last = site.dim - sum(self.dims[:-1])
            yield (
                f"the widths {self.dims} add up to {sum(self.dims)}, not to dim {site.dim}",
                f"dims={(*self.dims[:-1], last)}",
            )

    @property
    def max_length(self) -> int:
        return math.prod(self.shape)

    def build(self, site: Site) -> AbsoluteLayer:
        return AxialLayer(self)


class AxialLayer(AbsoluteLayer):
    def __init__(self, spec: Axial) -> None:
        super().__init__()
        self.spec = spec
        self.tables = nn.ModuleList(nn.Embedding(n, d) for n, d in zip(spec.shape, spec.dims, strict=True))

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.spec.max_length, f"shape whose product is larger than that of {self.spec.shape}")
        digits = digits_of(places.pos.clamp(max=self.spec.max_length - 1), self.spec.shape)
        return torch.cat([table(digit) for table, digit in zip(self.tables, digits, strict=True)], -1).to(dtype)


class AxialSum(AbsolutePosition):
    """Position p as its digits in the mixed radix `shape`, one learned table a digit, each dim wide, and all added up.

    Sparse Transformers, Child et al. 2019, arXiv:1904.10509, section 5.3: an image's row, column and channel, or the row
    and column of a text that is laid out in rows of one stride. Any length up to the product of the shape.
    """

    shape: tuple[int, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.shape or min(self.shape) < 1:
            yield f"the shape {self.shape} has no positions", "shape=(64, 128)"

    @property
    def max_length(self) -> int:
        return math.prod(self.shape)

    def build(self, site: Site) -> AbsoluteLayer:
        return AxialSumLayer(self, site.dim)


class AxialSumLayer(AbsoluteLayer):
    def __init__(self, spec: AxialSum, dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.tables = nn.ModuleList(nn.Embedding(n, dim) for n in spec.shape)

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.spec.max_length, f"shape whose product is larger than that of {self.spec.shape}")
        digits = digits_of(places.pos.clamp(max=self.spec.max_length - 1), self.spec.shape)
        parts = [table(digit) for table, digit in zip(self.tables, digits, strict=True)]
        return torch.stack(parts).sum(0).to(dtype)


def digits_of(pos: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """Positions as their digits in a mixed radix, the first the slowest."""
    digits = []
    for length in reversed(shape):
        digits.append(pos % length)
        pos = pos // length
    return digits[::-1]


def refuse_past_end(places: Places, length: int, larger: str = "larger length") -> None:
    """Raise where a token stands past the last position that a table has; larger: what the model is to be built with."""
    end = places.bounds[1]
    if end >= length:
        raise FormersError(
            f"this model has {length} positions and was given a token at position {end} (counted from 0): "
            f"shorten the input to {length} tokens, or build the model with a {larger}"
        )
