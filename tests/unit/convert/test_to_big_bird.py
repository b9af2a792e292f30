"""What a BERT and a GPT-2 become as Big Birds."""

from typing import Any

import pytest
import torch
from torch import nn

from formers import Blocks, Causal, ConfigError, make
from formers.convert.long import long_model

SIZE = {"vocab": 30, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "dropout": 0.0}


def old(name: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = make(name, **{**SIZE, **changes}).build().double().eval()
    return model


def tokens(length: int) -> torch.Tensor:
    return torch.randint(30, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "covered"), [("bert", 192), ("gpt2", 448)])
def test_short_texts_give_the_old_logits(name: str, covered: int) -> None:
    before = old(name, length=500)
    after = long_model(before, "big_bird", 1000).double()
    assert after.spec.max_length == 1000 and after.spec.name == f"big_bird_{before.spec.name}"
    with torch.no_grad():
        for length in (1, 64, 150, covered):
            torch.testing.assert_close(after(tokens(length)).logits, before(tokens(length)).logits)
        longer, wanted = after(tokens(covered + 1)).logits, before(tokens(covered + 1)).logits
        assert (longer - wanted).abs().max() > 1e-6
        assert after(tokens(1000)).logits.isfinite().all()


def test_positions_are_copied_and_layers_draw_differently() -> None:
    before = old("bert", length=40)
    after = long_model(before, "big_bird", 700)
    table = after.embedding.position.table.weight
    assert torch.equal(table, before.embedding.position.table.weight.float().repeat(18, 1)[:700])
    drawn = [block.sublayers[0].pattern.right for block in after.spec.blocks]
    assert [(each.length, each.seed) for each in drawn] == [(700, 0), (700, 1)]


def test_it_can_be_trained() -> None:
    model = long_model(old("gpt2", length=40), "big_bird", 500).train()
    model(tokens(500)).logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_that_sees_less_already_is_refused() -> None:
    spec = make("gpt2", **SIZE, length=40)
    block = spec.blocks[0]
    local = block.sublayers[0].replace(pattern=Causal() & Blocks(4, 1))
    model = spec.replace(blocks=(block.replace(sublayers=(local, block.sublayers[1])),)).build()
    with pytest.raises(ConfigError, match="does not look at everything"):
        long_model(model, "big_bird", 500)
    with pytest.raises(ConfigError, match="40 positions already"):
        long_model(old("bert", length=40), "big_bird", 30)
