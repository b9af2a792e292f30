"""What one pass keeps for the next serves training too, whichever comes first."""

import pytest
import torch

from formers import (
    Attention,
    Block,
    Blocks,
    Causal,
    Decoder,
    Embedding,
    Encoder,
    LongformerAttention,
    Strided,
    TopBlocks,
    TransformerXL,
    Window,
)
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.call import Layer

CAUSAL: dict[str, Layer] = {
    "window": Attention(2, pattern=Causal() & Window(100)),
    "strided": Attention(2, pattern=Causal() & (Window(20) | Strided(20))),
    "blocks by content": Attention(2, select=TopBlocks(16, 2)),
    "distances": Attention(2, position=TransformerXL()),
}
BOTH_WAYS: dict[str, Layer] = {
    "random blocks": Attention(2, pattern=Blocks(16, 1, 1) | RandomBlocks(16, 2, heads=2, length=512)),
    "longformer": LongformerAttention(2, Window(30)),
}


@pytest.mark.parametrize("length", [101, 419])
@pytest.mark.parametrize("name", [*CAUSAL, *BOTH_WAYS])
def test_training_follows_a_pass_in_inference_mode(name: str, length: int) -> None:
    kind, layer = (Decoder, CAUSAL[name]) if name in CAUSAL else (Encoder, BOTH_WAYS[name])
    model = kind("model", 30, 16, (Block((layer,)),), Embedding()).build()
    inputs = torch.randint(30, (2, length + len(name)))  # a length that no other test has asked for
    with torch.inference_mode():
        seen = model(inputs).hidden
    told = model(inputs).hidden
    torch.testing.assert_close(told, seen)
    told[..., 0].sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
