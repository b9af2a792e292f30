"""Sparse queries, keys and values: one multiplicative layer for all, then a small convolution for each."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.own_keys import own_keys
from formers.attention.project import Projection, ProjectionLayer, join_heads, split_heads
from formers.attention.sparse_output import SparseOut, SparseOutput
from formers.places import Places
from formers.sparse.convolution import ModuleConv, unbroken
from formers.sparse.multiplicative import Begin, MultiplicativeLinear, nearest_divisor
from formers.spec.core import Site

ShareQK = Literal["none", "same", "unit", "average"]


class MultConv(Projection):
    """u = a multiplicative layer of x; queries, keys and values are convolutions of u over time and neighbouring modules.

    Scaling Transformers and Terraformer, Jaszczur et al. 2021, arXiv:2111.12763. modules: S modules of dim / S numbers,
    None: as many as heads, so that a module is a head. length, width: of the kernels, in tokens, its own the last, and in
    modules; that of values sees one module. Tokens before a kernel are real ones, wherever padding stands.

    share_qk: "none": a convolution for each of queries and keys. "same": one for both, a key is its query, as in the
    paper's largest models. "unit": a key is its query at length 1, as hashing wants it; use it with scale=1.0 and
    position=SelfLast(), and see SharedQK. "average": a query is the mean of what "none" makes of queries and keys, and its
    key the same at length 1: a model pretrained with "none" goes on with hashing on the same parameters.
    values: "none": values see u alone; "fixed": each module of u beside the same one of x; "original": modules cut out of
    all of u followed by all of x, as in early checkpoints. output: "none": the heads side by side are the output; or a
    layer that makes them one, of the kinds above. init: see `Begin`.
    """

    modules: int | None = None
    length: int = 3
    width: int = 3
    share_qk: ShareQK = "none"
    values: Literal["none", "fixed", "original"] = "none"
    output: SparseOutput = "none"
    init: Begin = "fan"

    @property
    def shared(self) -> bool:
        return self.share_qk != "none"

    @property
    def across(self) -> bool:
        return False

    @property
    def output_looks_back(self) -> bool:
        return "conv" in self.output

    def splits(self, site: Site) -> bool:
        """Where heads are whole modules that see their neighbours alone."""
        plain = self.values != "original" and not self.output_looks_back
        return plain and (self.modules or site.heads) % site.heads == 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from whole_width_problems(site)
        yield from module_problems(self.modules, site.dim, site)
        yield from kernel_problems(self.length, self.width)

    def build(self, site: Site) -> ProjectionLayer:
        return MultConvLayer(self, site)


class PreparedLayer(SparseOut):
    """`prepare` has made queries, keys and values (B, T, M), or queries and values alone, and put them side by side."""

    looks_back = True

    def __init__(self, site: Site, share_qk: ShareQK, *out: Any) -> None:
        super().__init__(*out)
        self.head_dim, self.share_qk = site.head_dim, share_qk

    def queries(self, x: Tensor) -> Tensor:
        return self.together(x)[0]

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.together(x)[1:]

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return as_heads(x, self.head_dim, self.share_qk)


class MultConvLayer(PreparedLayer):
    """mult, q_conv, k_conv (None where one makes both), v_conv; out_mult and out_conv, None where there is none."""

    def __init__(self, spec: MultConv, site: Site) -> None:
        dim, modules, kernel = site.dim, spec.modules or site.heads, (spec.length, spec.width)
        super().__init__(site, spec.share_qk, spec.output, dim, modules, kernel, spec.init)
        self.spec, self.site, self.modules_in_row = spec, site, modules
        self.mult = MultiplicativeLinear(dim, dim, modules, init=spec.init)
        self.q_conv = ModuleConv(dim, dim, modules, *kernel, init=spec.init)
        apart = spec.share_qk in ("none", "average")
        self.k_conv = ModuleConv(dim, dim, modules, *kernel, init=spec.init) if apart else None
        seen = dim if spec.values == "none" else 2 * dim
        self.v_conv = ModuleConv(seen, dim, modules, spec.length, 1, init=spec.init)

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        met = unbroken(self.seen(self.mult(x), x), at, past, self.q_conv.back)
        return met.put_back(torch.cat(self.convolved(met.rows), -1)), met.tail

    def seen(self, u: Tensor, x: Tensor) -> Tensor:
        """What convolutions see of some modules (B, T, W): u, or u and x side by side."""
        return u if self.spec.values == "none" else torch.cat([u, x], -1)

    def convolved(self, rows: Tensor) -> list[Tensor]:
        """Some modules (B, back + T, W or 2 W) as `seen` made them -> queries, perhaps keys, and values (B, T, W)."""
        values = self.spec.values
        u = rows if values == "none" else rows.chunk(2, -1)[0]
        both = [self.q_conv(u)] if self.k_conv is None else [self.q_conv(u), self.k_conv(u)]
        if self.share_qk == "average":
            both = [(both[0] + both[1]) / 2]
        if values == "fixed":
            u_and_x = rows.unflatten(-1, (2, -1, self.site.dim // self.modules_in_row))
            rows = u_and_x.transpose(-3, -2).flatten(-3)
        return [*both, self.v_conv(rows)]

    def share(self, heads: slice) -> ProjectionLayer:
        return MultConvShare(self, heads)


class MultConvShare(ProjectionLayer):
    """Some heads of it, that are whole modules; it owns no parameters."""

    looks_back = True

    def __init__(self, whole: MultConvLayer, heads: slice) -> None:
        super().__init__()
        self._whole = (whole,)  # not as a module: its parameters are not these heads' alone
        site, width = whole.site, whole.site.dim // whole.modules_in_row
        self._own = slice(heads.start * site.head_dim, heads.stop * site.head_dim)
        beside = whole.spec.width // 2 * width
        self._near = slice(max(0, self._own.start - beside), min(site.dim, self._own.stop + beside))

    def prepare(self, x: Tensor, at: Places, past: Any) -> tuple[Tensor, Any]:
        """Of the modules of these heads and those beside them, which convolutions see."""
        (whole,), near, own = self._whole, self._near, self._own
        seen = whole.seen(whole.mult.rows(x, near), x[..., near])
        met = unbroken(seen, at, past, whole.q_conv.back)
        inner = slice(own.start - near.start, own.stop - near.start)
        return met.put_back(torch.cat([made[..., inner] for made in whole.convolved(met.rows)], -1)), met.tail

    def together(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (whole,) = self._whole
        return as_heads(x, whole.head_dim, whole.share_qk)

    def output(self, heads: Tensor) -> Tensor:
        (whole,) = self._whole
        joined, own = join_heads(heads), self._own
        if whole.out_mult is not None:
            return whole.out_mult.columns(joined, own)
        return F.pad(joined, (own.start, whole.site.dim - own.stop))


def as_heads(x: Tensor, head_dim: int, share_qk: ShareQK) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, perhaps keys, and values side by side -> queries, keys and values (B, H, T, D)."""
    if share_qk == "none":
        q, k, v = (split_heads(part, head_dim) for part in x.chunk(3, -1))
        return q, k, v
    q, v = (split_heads(part, head_dim) for part in x.chunk(2, -1))
    return (q, q, v) if share_qk == "same" else (*own_keys(q), v)


def whole_width_problems(site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with heads where queries, keys and values must each be as wide as the stream."""
    if site.kv_heads != site.heads:
        what = f"{site.heads} heads have keys made module by module, and cannot share {site.kv_heads} key heads"
        yield what, "kv_heads=None"
    if site.heads * site.head_dim != site.dim:
        what = f"{site.heads} heads of {site.head_dim} numbers are not the {site.dim} of the stream"
        yield what, "head_dim=None"


def module_problems(modules: int | None, numbers: int, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of modules, None standing for the number of heads."""
    count = site.heads if modules is None else modules
    if numbers > 0 and (count < 1 or numbers % count):
        yield f"{numbers} numbers do not split into {count} modules", f"modules={nearest_divisor(numbers, count)}"


def kernel_problems(length: int, width: int) -> Iterator[tuple[str, str]]:
    """What is wrong with a kernel over tokens and modules."""
    if length < 1:
        yield f"a kernel of {length} tokens sees nothing", "length=3"
    if width < 1 or width % 2 == 0:
        yield f"a kernel of {width} modules has no middle one", f"width={max(1, width + 1)}"
