"""Many tokens of a stream at once, and many query heads on one key head: what one by one gives."""

import numpy as np
import pytest
import torch
from small import KERNELS, VOCAB, awake, decoder, one_by_one

from formers import GLU, ALiBi, Attention, Block, Causal, Decoder, Rotary, Strided, Untied, Window
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine

WIDE = decoder(Attention(4, kv_heads=2, position=Rotary()), GLU(75), head=Untied())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [17, 18, 33, 49, 64, 70])
def test_a_prompt_at_once_is_what_its_tokens_are_one_by_one(dtype: str, kernel: str, count: int) -> None:
    # What several rows are rounded to is not what one row is: see "Numbers" in docs/decoding.md.
    close = 1e-5 if dtype == "fp32" else 2e-3 if dtype == "bf16" else 0.05
    check_at_once(WIDE, dtype, kernel, count, close)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [18, 33, 49, 64])
def test_matrices_larger_than_what_meets_all_tokens_at_a_time(dtype: str, kernel: str, count: int) -> None:
    """In rows and in columns, and of no whole number of either."""
    long = Decoder("long", VOCAB, 176, (Block((GLU(2100),)),), head=Untied())
    check_at_once(long, dtype, kernel, count, 1e-4 if dtype == "fp32" else 2e-3)


def check_at_once(spec: Decoder, dtype: str, kernel: str, count: int, close: float) -> None:
    engine = Engine(lower(awake(spec), dtype), kernel)
    tokens = torch.randint(VOCAB, (count,)).tolist()
    at_once = engine.session(threads=2).step(tokens, [0] * count)
    expected = one_by_one(engine.session(threads=1), tokens)
    np.testing.assert_allclose(at_once, expected, atol=close, rtol=close)


@pytest.mark.parametrize("pattern", [Causal(), Causal() & Window(7), Causal() & Strided(3)], ids=repr)
@pytest.mark.parametrize("position", [Rotary(), ALiBi()], ids=repr)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("heads", [4, 5, 10])
def test_query_heads_that_share_a_key_head(heads: int, kernel: str, position: Rotary | ALiBi, pattern: Causal) -> None:
    block = Block((Attention(heads, kv_heads=1, pattern=pattern, position=position), GLU(48)))
    model = awake(Decoder("wide", VOCAB, 88 * heads, (block,)))  # 64 columns, 16 and 8 for each head
    tokens = torch.randint(VOCAB, (80,)).tolist()
    found = Engine(lower(model, "fp32"), kernel).session(threads=1).step(tokens, [0] * 80)
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
