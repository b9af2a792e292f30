"""Small models to decode with."""

from dataclasses import replace
from typing import Any

import numpy as np
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
from formers.native.engine.program import Program
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


def kept_in(program: Program, cache: str) -> Program:
    """The same, its keys and values in numbers of a type."""
    return replace(program, caches=tuple(each._replace(type=cache) for each in program.caches))


def one_by_one(session: Session, tokens: list[int], stream: int = 0) -> np.ndarray:
    """The logits of tokens, each read in a call of its own."""
    return np.concatenate([session.step([token], [stream]) for token in tokens])


def session(spec: Decoder, streams: int = 1, dtype: str = "fp32", **how: Any) -> Session:
    return Engine(lower(awake(spec), dtype)).session(streams, threads=1, **how)
