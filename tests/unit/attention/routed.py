"""Routed attention to test: its forms, and ways to build and to call them."""

from typing import Any

import pytest
import torch

from formers import MLP, Attention, Block, Causal, Decoder, SelfLast, SharedQK, Window
from formers.attention.layer import AttentionLayer
from formers.attention.routing import Routing
from formers.call import Call
from formers.parallel import Parallel
from formers.places import Places
from formers.spec import Site

H, D, M, T, VOCAB = 2, 8, 16, 37, 30
ALIKE: dict[str, Any] = {"projection": SharedQK(), "position": SelfLast(), "scale": 1.0}
APART: dict[str, Any] = {}
FORMS = {
    "strict": (Routing(4, 6), ALIKE),
    "balanced": (Routing(4, 6, balanced=True), ALIKE),
    "balanced apart": (Routing(4, 6, balanced=True, joint=False), APART),
    "balanced by length": (Routing(4, balanced=True), ALIKE),
}
PADDED = [[0] * 9 + [1] * 28, [1] * 37, [1] * 6 + [0] * 31, [1] * 10 + [0] * 8 + [1] * 19]
BOTH = pytest.mark.parametrize("causal", [True, False])
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


def layer(select: Routing | None, causal: bool = True, **fields: Any) -> AttentionLayer:
    built = Attention(H, select=select, **fields).build(Site(dim=M, causal=causal))
    assert isinstance(built, AttentionLayer)
    return built


def whole(length: int = T) -> Call:
    return Call(Places.run(0, length), remember=False)


def places(rows: list[list[int]]) -> Places:
    real = torch.tensor(rows, dtype=torch.bool)
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


def model(select: Routing, fields: dict[str, Any], streaming: bool = False) -> Any:
    local = Attention(H, head_dim=D, pattern=Causal() & Window(5))
    routed = Attention(H, head_dim=D, select=select, **fields)
    block = Block((Parallel((local, routed)), MLP(24)))
    return Decoder("routed", VOCAB, M, (block, block)).build(streaming=streaming).eval()
