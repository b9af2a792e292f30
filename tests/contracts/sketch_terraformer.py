"""A decoder without cross-attention: its stream begins with the encoder's output. Terraformer, arXiv:2111.12763."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention import Projection
from formers.attention.project import ProjectionLayer
from formers.block import StackLayer
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.spec import Site
from formers.tokens import Seen, seen_after


class SketchAfterEncoder(Layer):
    """Blocks over [the encoder's output; the target], causal throughout; padding between the two stands nowhere."""

    blocks: tuple[Layer, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not site.encoder:
            yield "there is no encoder for the stream to begin with", "put this decoder into an EncoderDecoder"

    def inside(self, site: Site) -> Site:
        return site.replace(encoder=False)  # nothing within has to attend to it again

    def build(self, site: Site) -> nn.Module:
        return SketchAfterEncoderLayer(self, self.inside(site))


class SketchStream(NamedTuple):
    """How many real source tokens each row begins with, and what the blocks remember."""

    ahead: Seen
    blocks: Any


class SketchAfterEncoderLayer(nn.Module):
    def __init__(self, spec: SketchAfterEncoder, site: Site) -> None:
        super().__init__()
        self.stack = StackLayer(spec.blocks, site)

    def forward(self, x: Tensor, call: Call, state: SketchStream | None = None, choices: Any = None) -> Out:
        length = x.shape[1]
        if state is not None:
            at, ahead, blocks = after(call.at, state.ahead), state.ahead, state.blocks
        else:
            source, blocks = call.encoded, None
            ahead = seen_after(0, source.places)
            at = source.places.join(after(call.at, ahead))
            x = torch.cat([source.hidden, x], 1)
        out = self.stack(x, call.with_places(at), blocks, choices)
        return out._replace(y=out.y[:, -length:], state=SketchStream(ahead, out.state))


def after(at: Places, ahead: Seen) -> Places:
    """The same tokens behind `ahead` others."""
    if isinstance(ahead, int) and at.start is not None:
        return Places.run(at.start + ahead, at.length, at.device, at.marks)
    return Places(at.pos + (ahead if isinstance(ahead, int) else ahead[:, None]), at.real, at.marks)


class SketchMultConv(Projection):
    """One multiplicative product for all, then causal convolutions over (time, modules) for each of q, k, v. No output."""

    modules: int
    width: int = 3

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.dim % self.modules or site.heads * site.head_dim != site.dim or site.kv_heads != site.heads:
            yield f"dim {site.dim} must be heads * head_dim and split into {self.modules} modules", "modules=heads"

    def build(self, site: Site) -> ProjectionLayer:
        return SketchMultConvLayer(self, site)


class SketchMultConvLayer(ProjectionLayer):
    looks_back = True

    def __init__(self, spec: SketchMultConv, site: Site) -> None:
        super().__init__()
        self.spec, self.heads = spec, site.heads
        width = site.dim // spec.modules
        self.gate = nn.Parameter(torch.randn(spec.modules, site.dim) / 2)
        self.mix = nn.Parameter(torch.randn(site.dim, width) * (2 / (site.dim + width)) ** 0.5)
        shapes = {"q": (spec.width, 3), "k": (spec.width, 3), "v": (spec.width, 1)}
        self.convs = nn.ModuleDict(
            {name: nn.Conv2d(width, width, shape, padding=(0, shape[1] // 2)) for name, shape in shapes.items()}
        )

    def prepare(self, x: Tensor, at: Places, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each token's own product and those of the width - 1 real tokens before it: (B, T, width * M)."""
        u = torch.einsum("bti,si,im->btsm", x, self.gate, self.mix).flatten(2)
        back, (batch, length, dim) = self.spec.width - 1, u.shape
        real = torch.ones_like(u[..., 0], dtype=torch.bool) if at.real is None else at.real
        nth = torch.where(real, real.cumsum(1) - 1 + back, back + length)  # its row among the real ones
        rows = u.new_zeros(batch, back + length + 1, dim).scatter(1, nth[..., None].expand_as(u), u)
        rows = torch.cat([u.new_zeros(batch, back, dim) if past is None else past, rows[:, back:]], 1)

        def pick(index: Tensor) -> Tensor:
            return rows.gather(1, index[..., None].expand(-1, -1, dim))

        tail = real.sum(1, keepdim=True) + torch.arange(back)
        return torch.cat([pick(nth - j) for j in range(back, -1, -1)], -1), pick(tail)

    def queries(self, x: Tensor) -> Tensor:
        return self.conv("q", x)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv("k", x), self.conv("v", x)

    def output(self, heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).flatten(2)

    def conv(self, name: str, x: Tensor) -> Tensor:
        """(B, T, width * M) -> (B, H, T, D)."""
        image = x.unflatten(-1, (self.spec.width, self.spec.modules, -1)).flatten(0, 1).movedim(-1, 1)
        y = self.convs[name](image).squeeze(2).mT  # (B * T, modules, M / modules)
        return y.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
