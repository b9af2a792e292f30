"""What cannot stand in a reversible stack, or around one, is refused where it is built, with the mend."""

from typing import Any

import pytest
import torch

from formers import (
    MLP,
    Attention,
    Block,
    ConfigError,
    CrossAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    GRUGate,
    MaskedLM,
    PostNorm,
    Tied,
    Untied,
)
from formers.call import Call
from formers.reversible import Reversible
from formers.spec import from_json, to_json

BLOCK = Block((Attention(2), MLP(12)))


def decoder(*blocks: Any, **fields: Any) -> Decoder:
    return Decoder("model", 11, 8, blocks, **({"head": Untied()} | fields))


REFUSED = {
    "a post-norm block": (decoder(Reversible((Block((MLP(12),), PostNorm()),))), "PostNorm cannot be", "residual=PreNorm"),
    "another layer": (decoder(Reversible((MLP(12),))), "a MLP cannot be inverted", "blocks="),
    "one in another": (decoder(Reversible((Reversible((BLOCK,)),))), "a Reversible inside a Reversible", "put its blocks"),
    "one deep in another": (decoder(Reversible((Block((Reversible((BLOCK,), "mean"),)),))), "inside a Reversible", "put"),
    "no blocks": (decoder(Reversible(())), "without blocks does nothing", "blocks="),
    "a wide one in a block": (decoder(Block((Reversible((BLOCK,)),))), "puts out 16 numbers .* 8 wide", 'merge="mean"'),
    "a block behind a wide one": (decoder(Reversible((BLOCK,)), BLOCK), "puts out 16 .* behind it reads 8", 'merge="mean"'),
    "a tied head": (decoder(Reversible((BLOCK,)), head=Tied()), r"16 numbers .* Tied\(\) reads 8", r"head=Untied\(\)"),
    "a masked head": (decoder(Reversible((BLOCK,)), head=MaskedLM()), "MaskedLM", r"head=Untied\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_mend(name: str) -> None:
    spec, what, mend = REFUSED[name]
    with pytest.raises(ConfigError, match=f"(?s){what}.*fix: .*{mend}"):
        spec.build()


def test_a_gate_in_place_of_a_residual_is_named() -> None:
    with pytest.raises(ConfigError, match="is a GRUGate, not Residual"):
        decoder(Reversible((Block((MLP(12),), GRUGate()),))).build()


def test_an_encoder_twice_as_wide_cannot_be_attended() -> None:
    reads = Block((Attention(2), CrossAttention(2), MLP(12)))
    wide = Encoder("source", 11, 8, (Reversible((BLOCK,)),))
    target = decoder(Reversible((reads,), "mean"), head=Tied())
    with pytest.raises(ConfigError, match=r'(?s)attends to an encoder 16 wide.*fix: merge="mean" in the encoder'):
        EncoderDecoder("pair", wide, target).build()
    mended = EncoderDecoder("pair", Encoder("source", 11, 8, (Reversible((BLOCK,), "mean"),)), target)
    assert mended.build()(torch.ones(1, 3).long(), torch.ones(1, 4).long()).logits.shape == (1, 4, 11)


def test_the_head_and_the_norm_are_as_wide_as_both_streams() -> None:
    model = decoder(Reversible((BLOCK,))).build()
    assert model.norm.normalized_shape == (16,) and model.head.proj.in_features == 16
    assert model(torch.ones(1, 3).long()).hidden.shape == (1, 3, 16)


def test_json_brings_it_back() -> None:
    spec = decoder(Reversible((BLOCK,), "mean"))
    assert from_json(to_json(spec)) == spec


def test_a_layer_inside_cannot_ask_for_logits() -> None:
    model = decoder(Reversible((BLOCK,))).build()

    def asks(x: torch.Tensor, call: Call, *rest: Any) -> None:
        call.read(x)

    model.stack.blocks[0].blocks[0].sublayers[1].forward = asks
    with pytest.raises(ValueError, match="inside a Reversible asks for logits"):
        model(torch.ones(1, 3).long())
