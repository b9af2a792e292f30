"""A short model made long: its own logits wherever the pattern covers what it saw, positions copied, weights kept."""

from typing import Any

import pytest
import torch
from torch import Tensor

from formers import (
    MLP,
    Attention,
    Block,
    Causal,
    ConfigError,
    Decoder,
    Embedding,
    Encoder,
    Learned,
    LongformerAttention,
    Reversible,
    Rotary,
    Sinusoidal,
    Window,
    make,
)
from formers.convert.long import LONG, lengthened, long_model
from formers.position import Axial

SHAPE = {"vocab": 40, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "length": 600}
TABLE = "embedding.position.table.weight"


def awake(spec: Any) -> Any:
    """A model in float64 at rest, with noise on every parameter."""
    torch.manual_seed(0)
    model = spec.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tokens(length: int, batch: int = 2) -> Tensor:
    return torch.randint(40, (batch, length), generator=torch.Generator().manual_seed(length))


def logits(model: Any, length: int, **given: Any) -> Tensor:
    with torch.no_grad():
        return model.double()(tokens(length), **given).logits


@pytest.mark.parametrize("length", [1, 40, 257])
@pytest.mark.parametrize("marked", [False, True])
def test_an_encoder_reads_what_half_a_window_covers_as_before(length: int, marked: bool) -> None:
    """With global tokens too: their own projections begin as those of all others."""
    old = awake(make("bert", **SHAPE))
    new = long_model(old, "longformer", 1300)
    marks = {"global": (tokens(length) < 6).long()} if marked else None
    torch.testing.assert_close(logits(new, length, marks=marks), logits(old, length))


def test_with_padding(side: str = "left") -> None:
    old = awake(make("bert", **SHAPE))
    mask = torch.arange(50).expand(2, -1) >= torch.tensor([[0], [9]])
    found = logits(long_model(old, "longformer", 1300), 50, mask=mask)
    torch.testing.assert_close(found[mask], logits(old, 50, mask=mask)[mask])


@pytest.mark.parametrize("length", [1, 512])
def test_a_decoder_reads_what_a_window_covers_as_before(length: int) -> None:
    old = awake(make("gpt2", **SHAPE))
    new = long_model(old, "longformer", 1300)
    torch.testing.assert_close(logits(new, length), logits(old, length))


def test_beyond_the_window_it_reads_otherwise_and_beyond_the_old_length_it_reads() -> None:
    for member, covered in (("bert", 258), ("gpt2", 513)):
        old = awake(make(member, **SHAPE))
        new = long_model(old, "longformer", 1300)
        found = (logits(new, 560) - logits(old, 560)).abs().amax((0, 2)) > 1e-9
        assert found.any() and (member == "bert" or not found[: covered - 1].any())
        assert logits(new, 1300).isfinite().all()


def test_positions_are_copied_and_all_else_is_kept() -> None:
    old = awake(make("bert", **SHAPE))
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    spec, weights = lengthened(old, "longformer", 1300)
    assert spec.max_length == 1300 and spec.name == "longformer_bert"
    for place in (0, 599, 600, 1199, 1200, 1299):
        assert torch.equal(weights[TABLE][place], before[TABLE][place % 600])
    own = [name for name in weights if "_global." in name]
    assert len(own) == 2 * 3 * 2
    for name in own:
        usual = name.replace("_global.", "_proj.").replace("sublayers.0.", "sublayers.0.projection.")
        assert torch.equal(weights[name], before[usual]) and weights[name] is not weights[usual]
    assert weights.keys() - before.keys() == set(own)
    for name in before.keys() - {TABLE}:
        assert torch.equal(weights[name], before[name])
    for name, tensor in old.state_dict().items():
        assert torch.equal(tensor, before[name])
    new = spec.build().double()
    new.load_state_dict(weights)


def test_what_is_kept_of_attention() -> None:
    block = Block((Attention(2, head_dim=6, position=Rotary(), dropout=0.2), MLP(8)))
    spec, _ = lengthened(Encoder("mine", 40, 16, (Reversible((block,)),)).build(), "longformer", 100)
    assert spec.blocks[0].blocks[0].sublayers[0] == LongformerAttention(2, Window(257), 6, Rotary(), dropout=0.2)
    block = Block((Attention(4, kv_heads=2, pattern=Causal(), position=Rotary()), MLP(8)))
    spec, _ = lengthened(Decoder("mine", 40, 16, (block,)).build(), "longformer", 100)
    assert spec.blocks[0].sublayers[0] == Attention(4, 2, pattern=Causal() & Window(512), position=Rotary())
    assert spec.max_length is None


def one(layer: Any, kind: Any = Encoder, position: Any = Sinusoidal()) -> Any:
    return kind("mine", 40, 16, (Block((layer, MLP(8))),), Embedding(position))


@pytest.mark.parametrize(
    ("spec", "to", "length", "told"),
    [
        (make("bert", **SHAPE), "longformer", 599, "has 600 positions already, so 599 would cut it"),
        (make("bert", **SHAPE), "longformer", 0, "cannot read 0 tokens"),
        (make("bert", **SHAPE), "long_former", 900, "no conversion to 'long_former': did you mean 'longformer'"),
        (make("transformer", **{k: v for k, v in SHAPE.items() if k != "length"}), "longformer", 9, "EncoderDecoder"),
        (one(Attention(2, pattern=Window(3))), "longformer", 9, "cannot be given global tokens"),
        (one(Attention(2, kv_heads=1)), "longformer", 9, "cannot be given global tokens"),
        (one(Attention(2, pattern=Causal() & Window(3)), Decoder), "longformer", 9, "does not look at all of the past"),
        (one(Attention(2), position=Axial((3, 3), (8, 8))), "longformer", 9, "only those of Learned are extended"),
        (one(MLP(4)), "longformer", 9, "has nothing that becomes longformer"),
    ],
)
def test_what_cannot_be_converted_is_told(spec: Any, to: str, length: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        lengthened(spec.build(), to, length)


@pytest.mark.parametrize("to", LONG)
@pytest.mark.parametrize("member", ["bert", "gpt2"])
def test_every_kind_gives_a_model_with_all_its_weights_that_reads_the_length(to: str, member: str) -> None:
    old = awake(make(member, **SHAPE | {"length": 64}))
    if (to, member) == ("etc", "gpt2"):
        with pytest.raises(ConfigError, match="only an Encoder"):
            lengthened(old, to, 200)
        return
    spec, weights = lengthened(old, to, 200)
    assert spec.max_length == 200 and set(weights) == set(spec.build().state_dict())
    marks = {"global": torch.zeros(2, 200), "segment": torch.full((2, 200), -1)} if to == "etc" else None
    assert logits(long_model(old, to, 200), 200, marks=marks).isfinite().all()


def test_a_table_of_the_same_length_stays() -> None:
    spec = one(Attention(2), position=Learned(64))
    new, weights = lengthened(awake(spec), "longformer", 64)
    assert new.embedding == spec.embedding and len(weights[TABLE]) == 64
