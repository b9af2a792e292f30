"""A lowered model says what PyTorch says; what the engine does not know is refused by name."""

from typing import Any

import pytest
import torch
from sketch_engine import ACTIVATIONS, Engine
from sketch_lowering import lower
from torch import nn

from formers import (
    MLP,
    ALiBi,
    Attention,
    Block,
    Causal,
    Decoder,
    FormersError,
    MaskedLM,
    PostNorm,
    Rotary,
    Window,
    make,
    stack,
)
from formers.feedforward import MLPLayer

SMALL = {"vocab": 13, "dim": 16, "depth": 2, "heads": 4, "hidden": 24}


def decoder(*sublayers: Any, **fields: Any) -> Decoder:
    return Decoder("mine", 13, 16, stack(Block(sublayers), times=2), **fields)


MODELS = {
    "gpt2": make("gpt2", **SMALL, length=20),
    "gpt2 without biases": make("gpt2", **SMALL, length=20, bias=False),
    "llama": make("llama", **SMALL, kv_heads=2),
    "adjacent": decoder(Attention(2, head_dim=6, position=Rotary(pairing="adjacent"), scale=0.3), norm=None),
} | {name: decoder(Attention(4, kv_heads=1), MLP(8, name)) for name in ACTIVATIONS}


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch_token_by_token(name: str) -> None:
    model = MODELS[name].build(streaming=True).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    tokens = torch.randint(13, (1, 12))
    engine = Engine(lower(model))
    with torch.no_grad():
        expected = model(tokens).logits[0]
    found = torch.stack([torch.from_numpy(engine.step(int(token))) for token in tokens[0]])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("spec", "unknown"),
    [
        (decoder(Attention(4, position=ALiBi())), "ALiBiLayer"),
        (decoder(Attention(4, pattern=Causal() & Window(3))), "Window"),
        (decoder(MLP(8), head=MaskedLM()), "MaskedLMLayer"),
        (Decoder("mine", 13, 16, (Block((MLP(8),), PostNorm()),)), "PostNormRule"),
    ],
)
def test_what_is_not_known_is_refused_by_name(spec: Decoder, unknown: str) -> None:
    with pytest.raises(FormersError, match=unknown):
        lower(spec.build())


def test_a_part_that_inherits_from_a_known_one_is_not_taken_for_it() -> None:
    class SketchOtherMLP(MLPLayer):
        """Means something else."""

    model = decoder(MLP(8)).build()
    model.stack.blocks[1].sublayers[0].__class__ = SketchOtherMLP
    with pytest.raises(FormersError, match="SketchOtherMLP cannot be lowered"):
        lower(model)
