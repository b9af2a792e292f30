"""Reversible stacks that do everything at once, and the same sums by ordinary autograd."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers import MLP, Attention, Block, CrossAttention, LayerNorm, PreNorm
from formers.call import Call, Encoded, Layer, Out, add_losses
from formers.parts import Part, in_parts
from formers.places import Places
from formers.reversible import Reversible, ReversibleLayer
from formers.spec import Site

DIM = 8


class Routed(Layer):
    """Each token goes to one of three matrices, chosen by a product; it charges for size, and notes the load."""

    def build(self, site: Site) -> nn.Module:
        return RoutedLayer(site.dim)


class RoutedLayer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.router = nn.Linear(dim, 3)
        self.ways = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        chances = self.router(x).softmax(-1)
        choices = chances.argmax(-1) if choices is None else choices
        all_ways = torch.stack([way(x) for way in self.ways], -2)
        y = all_ways.gather(-2, choices[..., None, None].expand(*x.shape[:2], 1, x.shape[2])).squeeze(-2)
        y = y * chances.gather(-1, choices[..., None])
        load = torch.bincount(choices.flatten(), minlength=3)
        return Out(y, None, {"size": y.pow(2).mean(), "height": y.abs().mean()}, choices, {"load": (load,)})


class Halved(Layer):
    """Two parts that read the same tokens, each of which chooses units and charges for them."""

    dropout: float = 0.0

    def build(self, site: Site) -> nn.Module:
        return HalvedLayer(site.dim, self.dropout)


class HalvedLayer(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.both = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        return in_parts(self.parts(call, choices), x)

    def parts(self, call: Call, choices: Any = None) -> list[Part]:
        def run(i: int, x: Tensor) -> Out:
            y = nn.functional.dropout(self.both[i](x), self.dropout, self.training)
            alive = (y > 0) if choices is None else choices[i]
            return Out(y * alive, None, {"size": y.square().mean()}, alive)

        return [Part(slice(None), lambda x, i=i: run(i, x)) for i in range(2)]


def build(times: int = 2, dropout: float = 0.2, merge: str = "concatenate", shared: bool = True) -> ReversibleLayer:
    """Attention, routing, cross-attention and a chunked feed-forward, in float64, all of it awake.

    shared: a sublayer whose parts share their rows, too.
    """
    sublayers = (Attention(2, dropout=dropout), Routed(), CrossAttention(2), MLP(12, dropout=dropout, chunk=5))
    block = Block(sublayers + (Halved(dropout),) * shared, PreNorm(LayerNorm(), dropout))
    layer = Reversible((block,) * times, merge).build(Site(DIM, causal=True, encoder=True)).double()
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, std=3.0 if "router" in name else 0.5)
    return layer


def inputs(length: int = 13) -> tuple[Tensor, Call]:
    x, hidden = (torch.randn(2, n, DIM, dtype=torch.float64, requires_grad=True) for n in (length, 5))
    return x, Call(Places.run(0, length), Encoded(hidden, Places.run(0, 5)))


def halves(layer: ReversibleLayer) -> Iterator[tuple[nn.Module, nn.Module, float]]:
    for block in layer.blocks:
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            yield norm, sublayer, block.residual.rate if layer.training else 0.0


def plain(layer: ReversibleLayer, x: Tensor, call: Call) -> Out:
    """The same by ordinary autograd, which keeps everything. Draws in the same order."""
    x1, x2, losses = x, x, []
    for norm, sublayer, rate in halves(layer):
        keep = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - rate) if rate else torch.ones_like(x)
        out = sublayer(norm(x2), call)
        losses.append(out.losses)
        x1, x2 = x2, x1 + out.y * keep / (1 - rate)
    y = torch.cat([x1, x2], -1) if layer.spec.merge == "concatenate" else (x1 + x2) / 2
    return Out(y, losses=add_losses(*losses))


def objective(out: Out) -> Tensor:
    weight = torch.linspace(-1, 1, out.y.numel(), dtype=out.y.dtype).view_as(out.y)
    return (out.y * weight).sum() + out.losses["size"] + 2 * out.losses["height"]


def gradients(out: Out, layer: nn.Module, x: Tensor, call: Call) -> list[Tensor | None]:
    """By x, the encoder's output and every parameter."""
    wanted = [x, call.encoded.hidden, *layer.parameters()]
    return list(torch.autograd.grad(objective(out), wanted, allow_unused=True))
