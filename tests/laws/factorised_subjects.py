"""Patterns that are factorised by place, recomputation, and summed positions by themselves in small models."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB, decoder

from formers import (
    MEMBERS,
    MLP,
    Attention,
    AxialSum,
    Block,
    Blocks,
    ByHead,
    Causal,
    Decoder,
    Embedding,
    Encoder,
    FanIn,
    Global,
    Permuted,
    PreNorm,
    Recomputed,
    Rotary,
    Shaw,
    Shifted,
    Sinusoidal,
    Strided,
    Summary,
    SwitchFF,
    Tied,
    Untied,
    Window,
    make,
    stack,
)

CAUSAL = {
    "columns": Causal() & Strided(5),
    "window and columns": Causal() & (Window(4) | Strided(5)),
    "block and cells": Causal() & ByHead((Blocks(6) | Summary(6, 4, 2), Blocks(6) | Summary(6, 1, 3))),
    "cells": Causal() & (Window(1) | Summary(4, 2, 2)),
    "global tokens": Causal() & (Global(3) | Window(4)),
    "shifted blocks": Causal() & ByHead((Blocks(4), Shifted(4, 1), Shifted(3, 2))),
}
BOTH_WAYS = {
    "columns": Window(3) | Strided(5),
    "cells": ByHead((Blocks(6), Summary(6, 4, 2))),
    "global tokens": Global(3) | Window(2),
    "permuted blocks": ByHead((Permuted(8, 3, 0), Permuted(8, 3, 1), Permuted(8, 3, 2))),
}


def factorised_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, pattern in CAUSAL.items():
        yield name, decoder(name, Attention(HEADS, pattern=pattern, position=Rotary()))
        yield f"{name} shaw", decoder(name, Attention(HEADS, kv_heads=2, pattern=pattern, position=Shaw(2)))
    yield "summed axes", decoder("summed axes", Attention(HEADS), Embedding(AxialSum((4, 4, 5))))
    blocks = stack(Block((Attention(HEADS, position=Rotary()), MLP(48))), times=2)
    yield "recomputed", Decoder("recomputed", VOCAB, DIM, (Recomputed(blocks),), head=Untied(), init=FanIn())
    switched = Block((Attention(HEADS, position=Rotary()), SwitchFF(48, 4)))
    nested = Recomputed((Recomputed(blocks[:1]), switched))
    yield "recomputed twice", Decoder("recomputed twice", VOCAB, DIM, (nested, blocks[0]))
    small = MEMBERS["sparse_transformer"].small
    for kind, use in (("strided", "alternate"), ("strided", "heads"), ("fixed", "alternate"), ("fixed", "heads")):
        yield f"{kind} {use}", make("sparse_transformer", **small, kind=kind, use=use)


def factorised_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, pattern in BOTH_WAYS.items():
        block = Block((Attention(HEADS, pattern=pattern), MLP(48, "gelu_sigmoid")), PreNorm(dropout=0.1))
        blocks = (Recomputed(stack(block, times=2)),)
        yield name, Encoder(name, VOCAB, DIM, blocks, Embedding(Sinusoidal()), head=Tied())
