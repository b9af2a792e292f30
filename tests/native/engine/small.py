"""Small models to decode with."""

from typing import Any

import torch
from torch import nn

from formers import (
    GLU,
    MLP,
    ALiBi,
    Attention,
    Block,
    Causal,
    Decoder,
    Embedding,
    Learned,
    Rotary,
    Untied,
    Window,
    stack,
)
from formers.native.engine.library import engine, missing
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine, Session

VOCAB, DIM = 40, 32
KERNELS = () if missing() else tuple(k for k in ("plain", "avx2", "avx512", "vnni", "amx") if engine().runs_here(k))


def decoder(*sublayers: Any, **fields: Any) -> Decoder:
    return Decoder("small", VOCAB, DIM, stack(Block(sublayers), times=2), **fields)


ROLLING = decoder(Attention(4, kv_heads=2, pattern=Causal() & Window(5), position=Rotary()), GLU(48), head=Untied())
LEARNED = decoder(Attention(4), MLP(48), embedding=Embedding(Learned(24)))
SLOPES = decoder(Attention(4, position=ALiBi()), MLP(48, "relu"))


def awake(spec: Decoder, seed: int = 0) -> nn.Module:
    """The model built, no parameter left at 0 or 1."""
    torch.manual_seed(seed)
    model = spec.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def session(spec: Decoder, streams: int = 1, dtype: str = "fp32", **how: Any) -> Session:
    return Engine(lower(awake(spec), dtype)).session(streams, threads=1, **how)
