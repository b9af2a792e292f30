"""Parts by themselves in a program: a table of vectors, the part, and what it puts out in place of logits."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from formers.native.engine.build import NOTHING, Builder
from formers.native.engine.program import Program
from formers.native.engine.run import Engine
from formers.spec.core import Site, Spec

Emit = Callable[[Builder, int], int]

# Weights that each type holds exactly, so that only what is done with them can differ. A group of 32 has its largest.
HELD = {"int8": (-127.0, 127.0, 64.0, -31.0, -90.0, 17.0), "int4": (-8.0, -3.0, 5.0, -8.0, 7.0, 2.0)}


def built(
    spec: Spec, dtype: str = "fp32", *, dim: int = 64, vocab: int = 10, heads: int = 4, seed: int = 0
) -> nn.Module:
    """A part with weights that `dtype` holds exactly, none of them 0; vectors, which stay in fp32, are random."""
    site = Site(dim=dim, vocab=vocab, causal=True, heads=heads, kv_heads=heads, head_dim=dim // heads)
    part = spec.build(site).eval()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            is_product = parameter.dim() > 1 and not name.endswith("bias")  # of many experts, biases stand in rows
            parameter.copy_(held(parameter, dtype, chance) if is_product else noise(parameter, 0.3, chance))
    return part


def held(like: Tensor, dtype: str, chance: torch.Generator) -> Tensor:
    """Random weights as large as those of `like`, of values that dtype holds."""
    std = float(like.std())
    if dtype not in HELD:
        numbers = noise(like, std, chance)
        return numbers.bfloat16().float() if dtype == "bf16" else numbers
    values = torch.tensor(HELD[dtype])
    step = 2.0 ** round(float((std / values.std()).log2()))
    return values[torch.randint(len(values), like.shape, generator=chance)] * step


def noise(like: Tensor, std: float, chance: torch.Generator) -> Tensor:
    return std * torch.randn(like.shape, generator=chance)


def table(count: int, dim: int) -> Tensor:
    """The vectors (count, dim) that the tokens of a program stand for."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(5))


def program(emit: Emit, dim: int, count: int, dtype: str) -> Program:
    """The part behind a table of `count` tokens; it must put out as many numbers."""
    build = Builder(dtype)
    x = build.register(dim)
    build.op(
        "embed", writes=[x], floats=[1.0], matrices=[build.matrix(table(count, dim), dtype="fp32")], vectors=[NOTHING]
    )
    return build.program("a part", "{}", count, None, emit(build, x)).packed()


def run(made: Program, tokens: Tensor, kernel: str, *, at_once: bool, threads: int = 1) -> Tensor:
    """What is put out for tokens (B, T), (B, T, V): stream by stream in one call each, or all streams token by token."""
    streams, length = tokens.shape
    session = Engine(made, kernel).session(streams, threads=threads)
    if at_once:
        rows = [session.step(stream, [i] * length) for i, stream in enumerate(tokens.tolist())]
        return torch.from_numpy(np.stack(rows))
    return torch.from_numpy(np.stack([session.step(tokens[:, t].numpy()) for t in range(length)], 1))


def ragged(made: Program, streams: Sequence[Sequence[int]], kernel: str) -> list[Tensor]:
    """Streams of different lengths, in one call for their first halves and one for the rest, in another order."""
    session = Engine(made, kernel).session(len(streams), threads=2)
    out: list[list[np.ndarray]] = [[] for _ in streams]
    for half, order in ((0, 1), (1, -1)):
        parts = [(i, list(s)[len(s) // 2 :] if half else list(s)[: len(s) // 2]) for i, s in enumerate(streams)][
            ::order
        ]
        rows = [(i, token) for i, part in parts for token in part]
        for (i, _), logits in zip(rows, session.step([t for _, t in rows], [i for i, _ in rows]), strict=True):
            out[i].append(logits)
    return [torch.from_numpy(np.stack(rows)) for rows in out]
