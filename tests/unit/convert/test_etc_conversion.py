"""A BERT becomes an ETC."""

import pytest
import torch

from formers import Attention, ConfigError, Embedding, Rotary, make
from formers.convert.etc import etc
from formers.convert.long import long_model

SMALL = {"vocab": 40, "dim": 24, "depth": 2, "heads": 3, "hidden": 32, "length": 96}


def bert(seed: int = 0):
    torch.manual_seed(seed)
    model = make("bert", **SMALL).build().double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def text(length: int) -> torch.Tensor:
    return torch.randint(0, 40, (2, length), generator=torch.Generator().manual_seed(1))


def marks(ahead: int, length: int) -> dict[str, torch.Tensor]:
    index = torch.arange(ahead + length).expand(2, -1)
    return {"global": (index < ahead).long(), "segment": torch.where(index < ahead, index, index % max(ahead, 1))}


def test_texts_within_the_radius_are_read_as_before() -> None:
    old = bert()
    new = long_model(old, "etc", 300).double()
    assert new.spec.max_length == 300
    tokens = text(85)
    torch.testing.assert_close(new(tokens).logits, old(tokens).logits)
    mask = torch.rand(2, 85) < 0.8
    torch.testing.assert_close(new(tokens, mask=mask).logits[mask], old(tokens, mask=mask).logits[mask])


def test_beyond_the_radius_tokens_see_their_neighbours_alone() -> None:
    old, tokens = bert(), text(96)
    new = long_model(old, "etc", 96).double()
    assert (new(tokens).logits - old(tokens).logits).abs().max() > 1e-3


def test_long_texts_with_global_tokens_are_read_and_learned_from() -> None:
    new = long_model(bert(), "etc", 300).double()
    out = new(text(7 + 300), marks=marks(7, 300)).logits
    out.square().mean().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None for p in new.parameters())


def test_global_tokens_begin_as_tokens_of_the_old_model_that_stand_nowhere() -> None:
    """Where all may see all, nothing but their embedding tells them from others."""
    old, tokens = bert(), text(3 + 60)
    placed = old.embedding.position.table.weight[:60] + old.embedding.segments.weight[0]
    x = old.embedding.tokens(tokens) + torch.cat([torch.zeros(3, 24), placed])
    found = long_model(old, "etc", 96).double()(tokens, marks=marks(3, 60)).logits
    old.embedding.register_forward_hook(lambda module, inputs, out: module.norm(x))
    torch.testing.assert_close(found, old(tokens).logits)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (make("gpt2", **SMALL), "gpt2 is a Decoder: only an Encoder can be given a global input"),
        (make("bert", **SMALL | {"length": 400}), "has 400 positions already, so 300 would cut it"),
        (make("reformer_translation").source, "cannot be given a global input"),
        (make("bert", **SMALL).replace(embedding=Embedding(segments=2)), "no absolute positions that could carry"),
    ],
)
def test_what_cannot_become_an_etc_is_told(spec, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        etc(spec, {}, 300)


def test_other_attention_is_refused() -> None:
    spec = make("bert", **SMALL)
    block = spec.blocks[0].replace(sublayers=(Attention(3, position=Rotary()), spec.blocks[0].sublayers[1]))
    with pytest.raises(ConfigError, match="Rotary"):
        etc(spec.replace(blocks=(block,), embedding=Embedding()), {}, 300)
