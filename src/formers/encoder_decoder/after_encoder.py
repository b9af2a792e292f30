"""A decoder without cross-attention: its stream begins with the encoder's output. Terraformer, arXiv:2111.12763."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.block import StackLayer, chain_problems
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.spec.core import Site
from formers.tokens import Seen, seen_after


class AfterEncoder(Layer):
    """Blocks over [the encoder's output; the target], causal throughout. Jaszczur et al. 2021, arXiv:2111.12763.

    A target token sees the whole source, each source token those before it, and the blocks work on both. Each row's target
    stands right behind its last real source token, whatever the padding, which may be anywhere: source tokens take up the
    first positions, and marks must be given on both sides or on neither. The first call runs source and target, later
    ones only what is new.

    Where the first block is a Reversible whose streams are given, the encoder hands over both of its own, (B, S, 2M), by a
    Reversible that concatenates them and no norm behind it; each goes on in one stream, and the target begins as both.
    """

    blocks: tuple[Layer, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not site.encoder:
            yield "there is no encoder for the stream to begin with", "put this decoder into an EncoderDecoder"
        if not self.blocks:
            yield "a stream without blocks only repeats the target", "blocks=stack(Block((...)), times=2)"
            return
        yield from chain_problems(self.blocks, site.dim, self.source_dim(site.dim))

    def inside(self, site: Site) -> Site:
        return site.replace(encoder=False)  # nothing within has to attend to it again

    def out_dim(self, dim: int) -> int:
        return self.blocks[-1].out_dim(dim) if self.blocks else dim

    def source_dim(self, dim: int) -> int:
        return self.blocks[0].in_dim(dim) if self.blocks else dim

    def build(self, site: Site) -> nn.Module:
        return AfterEncoderLayer(self, site)


class Behind(NamedTuple):
    """How many real source tokens each row begins with, one number or (B,), and what the blocks remember."""

    ahead: Seen
    blocks: Any


class AfterEncoderLayer(StackLayer):
    def __init__(self, spec: AfterEncoder, site: Site) -> None:
        super().__init__(spec.blocks, spec.inside(site))
        self.streams = spec.source_dim(site.dim) // site.dim

    def forward(self, x: Tensor, call: Call, state: Behind | None = None, choices: Any = None) -> Out:
        """x (B, T, M), the target alone; so is y."""
        length = x.shape[1]
        x = x.repeat(1, 1, self.streams)
        if state is not None:
            ahead, past = state
            at = behind(call.at, ahead)
        else:
            if call.encoded is None:
                raise ValueError("the stream was given neither an encoder's output nor the state of an earlier call")
            source, past = call.encoded, None
            ahead = seen_after(0, source.places)
            at = source.places.join(behind(call.at, ahead))
            x = torch.cat([source.hidden, x], 1)
        out = super().forward(x, replace(call, at=at, encoded=None), past, choices)
        return out._replace(y=out.y[:, -length:], state=Behind(ahead, out.state) if call.remember else None)


def behind(at: Places, ahead: Seen) -> Places:
    """The same tokens behind `ahead` others."""
    if isinstance(ahead, int) and at.start is not None:
        return Places.run(at.start + ahead, at.length, at.device, at.marks)
    return Places(at.pos + (ahead if isinstance(ahead, int) else ahead[:, None]), at.real, at.marks)
