"""Attention of the many queries of a prompt, by vectors and by tiles: what row by row gives."""

from typing import Any

import numpy as np
import pytest
import torch
from small import KERNELS, VOCAB, awake, kept_in, one_by_one

from formers import (
    MLP,
    ALiBi,
    Attention,
    Block,
    ByHead,
    Causal,
    Decoder,
    Everything,
    NoPosition,
    Rotary,
    SelfLast,
    SharedQK,
    Strided,
    T5Buckets,
    Window,
    make,
)
from formers.native.engine.encoded import give_encoded
from formers.native.engine.lower import lower
from formers.native.engine.program import Program
from formers.native.engine.run import Engine

LONG = 300  # tokens: several calls, and several tiles of keys
LAYERS = {
    "causal": Attention(2, head_dim=64, position=Rotary()),
    "of 96 columns": Attention(2, head_dim=96),
    "not of 32 columns": Attention(2, head_dim=20, position=Rotary()),
    "too wide": Attention(1, head_dim=288),
    "sharing a key head": Attention(6, kv_heads=2, head_dim=32, position=ALiBi()),
    "more heads than queries at once": Attention(72, kv_heads=1, head_dim=8),
    "a window": Attention(2, head_dim=32, pattern=Causal() & Window(7), position=ALiBi()),
    "a wide window": Attention(2, head_dim=64, pattern=Causal() & Window(150), position=T5Buckets()),
    "windows by head": Attention(
        4, kv_heads=1, head_dim=64, pattern=Causal() & ByHead((Window(3), Window(90), Everything(), Window(200)))
    ),
    "gaps in some heads": Attention(2, head_dim=32, pattern=Causal() & ByHead((Window(40), Strided(3)))),
    "its own key last": Attention(2, head_dim=64, projection=SharedQK(), position=SelfLast(), scale=1.0),
}


def program_of(layer: Attention, cache: str) -> Program:
    """A model whose weights are floats, and whose caches are of a type."""
    model = awake(Decoder("prompted", VOCAB, 32, (Block((layer, MLP(48))),)))
    return kept_in(lower(model, "fp32"), cache)


@pytest.mark.parametrize("cache", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", LAYERS)
def test_ragged_prompts_are_read_as_their_tokens_are_one_by_one(name: str, kernel: str, cache: str) -> None:
    engine = Engine(program_of(LAYERS[name], cache), kernel)
    prompts = {1: torch.randint(VOCAB, (LONG,)).tolist(), 0: torch.randint(VOCAB, (37,)).tolist()}
    together, apart = engine.session(2, threads=2), engine.session(2, threads=1)
    streams = [stream for stream, prompt in prompts.items() for _ in prompt]
    found = together.step([token for prompt in prompts.values() for token in prompt], streams)
    expected = np.concatenate([one_by_one(apart, prompt, stream) for stream, prompt in prompts.items()])
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cache", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("heads", [8, 20, 70])
def test_many_heads_on_one_key_head_are_the_same_in_all_kernels(heads: int, kernel: str, cache: str) -> None:
    """Token by token: some kernels take all heads together, and some a few at a time."""
    program = program_of(Attention(heads, kv_heads=1, head_dim=32, position=ALiBi()), cache)
    tokens = torch.randint(VOCAB, (150,)).tolist()
    found, expected = (one_by_one(Engine(program, name).session(), tokens) for name in (kernel, "plain"))
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_key_behind_a_query_does_nothing_to_it(kernel: str) -> None:
    """However large its scores and values are; not a digit changes."""
    model: Any = awake(Decoder("prompted", VOCAB, 32, (Block((Attention(2, head_dim=64), MLP(48))),)))
    with torch.no_grad():
        model.embedding.tokens.weight[1] *= 1e6
    engine = Engine(kept_in(lower(model, "fp32"), "bf16"), kernel)
    found = [engine.session(threads=1).step([0] * 40 + [last] * 24, [0] * 64) for last in (0, 1)]
    np.testing.assert_array_equal(found[0][:40], found[1][:40])
    assert not np.array_equal(found[0][40:], found[1][40:])


@pytest.mark.parametrize("cache", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_prompt_attends_to_what_an_encoder_gave(kernel: str, cache: str) -> None:
    model: Any = awake(make("transformer", vocab=VOCAB, dim=128, heads=2, depth=1, hidden=48, dropout=0.0))
    engine = Engine(kept_in(lower(model, "fp32"), cache), kernel)
    encoded = model.start(torch.randint(1, VOCAB, (1, 141))).encoded
    together, apart = engine.session(threads=2), engine.session(threads=1)
    with torch.inference_mode():
        for session in (together, apart):
            give_encoded(session, model, encoded)
    tokens = torch.randint(1, VOCAB, (70,)).tolist()
    found = together.step(tokens, [0] * len(tokens))
    np.testing.assert_allclose(found, one_by_one(apart, tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", [NoPosition(), ALiBi(), T5Buckets()], ids=repr)
def test_a_prompt_is_what_pytorch_makes_of_it(position: Any, kernel: str) -> None:
    layer = Attention(4, kv_heads=2, head_dim=64, pattern=Causal() & Window(100), position=position)
    model = awake(Decoder("prompted", VOCAB, 32, (Block((layer, MLP(48))),)))
    tokens = torch.randint(VOCAB, (LONG,)).tolist()
    found = Engine(lower(model, "fp32"), kernel).session(threads=2).step(tokens, [0] * LONG)
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
