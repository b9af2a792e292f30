"""Few key heads and many threads: the keys of each are cut into parts, and nothing else changes."""

import numpy as np
import pytest
import torch
from small import KERNELS, VOCAB, awake, kept_in

from formers import (
    MLP,
    ALiBi,
    Attention,
    Block,
    ByHead,
    Causal,
    Decoder,
    Everything,
    Rotary,
    SelfLast,
    SharedQK,
    Strided,
    Window,
)
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine

LONG, MORE = 1_100, 4
LAYERS = {
    "one key head": Attention(4, kv_heads=1, head_dim=32, position=Rotary()),
    "many heads on it": Attention(16, kv_heads=1, head_dim=32, position=ALiBi()),
    "two key heads": Attention(4, kv_heads=2, head_dim=20, position=ALiBi()),
    "a window that rolls": Attention(4, kv_heads=1, head_dim=32, pattern=Causal() & Window(700)),
    "windows by head": Attention(
        16, kv_heads=1, head_dim=32, pattern=Causal() & ByHead((Window(600), Everything()) * 8), position=Rotary()
    ),
    "a short window in one head": Attention(2, kv_heads=1, pattern=Causal() & ByHead((Window(3), Everything()))),
    "gaps in one head": Attention(2, kv_heads=1, pattern=Causal() & ByHead((Strided(3), Everything()))),
    "its own key last": Attention(1, head_dim=32, projection=SharedQK(), position=SelfLast(), scale=1.0),
}


@pytest.mark.parametrize("cache", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", LAYERS)
def test_threads_that_share_the_keys_of_a_head(name: str, kernel: str, cache: str) -> None:
    model = awake(Decoder("parted", VOCAB, 32, (Block((LAYERS[name], MLP(48))),)))
    program = kept_in(lower(model, "fp32"), cache)
    tokens = torch.randint(VOCAB, (2, LONG + MORE)).tolist()
    made = []
    for threads in (1, 6):
        session = Engine(program, kernel).session(2, threads=threads)
        for stream, row in enumerate(tokens):
            session.read(row[:LONG], stream)
        alone = [session.step([token], [0]) for token in tokens[0][LONG:]]
        beside = [session.step([tokens[0][0], token], [0, 1]) for token in tokens[1][LONG:]]
        made.append(np.concatenate(alone + beside))
    np.testing.assert_allclose(made[1], made[0], atol=1e-5, rtol=1e-5)
