import io

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from formers import claim
from formers.claim.cases.nanogpt import AsOurs, our_spec
from formers.claim.plain_gpt import CharacterSetting, PlainGPT, PlainLoop
from formers.errors import DataError
from formers.train import CosineDecay

SMALL = CharacterSetting(depth=2, heads=2, dim=8, length=6, batch=3, steps=40, warmup=4)


def test_our_spec_and_the_plain_model_are_one_model() -> None:
    ours, plain = our_spec(SMALL, vocab=11).build(), PlainGPT(SMALL, vocab=11)
    copy_weights(plain, ours)
    tokens = torch.arange(12).view(2, 6) % 11
    assert_close(ours(tokens).logits, plain(tokens))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters())


def copy_weights(plain: PlainGPT, ours: torch.nn.Module) -> None:
    """Into ours from the plain model, whose q, k and v are one matrix."""
    weights = {
        "embedding.tokens.weight": plain.tokens.weight,
        "embedding.position.table.weight": plain.places.weight,
        "norm.weight": plain.norm.weight,
    }
    for number, block in enumerate(plain.blocks):
        place = f"stack.blocks.{number}"
        attention, feed_forward = f"{place}.sublayers.0.projection", f"{place}.sublayers.1"
        for name, part in zip("qkv", block.qkv.weight.chunk(3), strict=True):
            weights[f"{attention}.{name}_proj.weight"] = part
        weights[f"{attention}.out_proj.weight"] = block.out.weight
        weights[f"{feed_forward}.up.weight"] = block.up.weight
        weights[f"{feed_forward}.down.weight"] = block.down.weight
        weights[f"{place}.residual.norms.0.weight"] = block.attention_norm.weight
        weights[f"{place}.residual.norms.1.weight"] = block.feedforward_norm.weight
    ours.load_state_dict(weights)


def test_both_loops_use_the_published_learning_rates() -> None:
    setting = CharacterSetting()
    assert setting.rate(99) == pytest.approx(1e-3, rel=0.02)
    assert setting.rate(1999) == pytest.approx(1e-4, rel=0.02)
    ours = CosineDecay(setting.warmup, setting.floor / setting.peak)
    for step in (100, 500, 1000, 2000):
        assert setting.peak * ours.factor(step, setting.steps) == pytest.approx(setting.rate(step - 1), rel=0.02)


def test_the_plain_loop_learns() -> None:
    text = torch.tensor([0, 1, 2, 3] * 20)
    loop = PlainLoop(SMALL, 4, text, seed=0)
    inputs, targets = text[None, :6], text[None, 1:7]

    def loss() -> float:
        return torch.nn.functional.cross_entropy(loop.model(inputs).flatten(0, 1), targets.flatten()).item()

    before = loss()
    for _ in range(SMALL.steps):
        loop()
    assert loss() < before
    assert loop.done == SMALL.steps


def test_a_plain_model_answers_in_the_words_of_ours() -> None:
    plain = PlainGPT(SMALL, vocab=5)
    tokens, at = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6, dtype=torch.bool)
    at[1, 3] = True
    asked = AsOurs(plain, our_spec(SMALL, vocab=5))
    assert asked(tokens).logits.shape == (2, 6, 5)
    assert_close(asked(tokens, logits_at=at).logits, plain(tokens)[1, 3][None])


def test_the_claim_runs_at_its_smallest_and_tells_three_rows(tmp_path) -> None:
    data = tmp_path / "text.txt"
    data.write_text("the quick brown fox jumps over the lazy dog\n" * 60, encoding="utf-8")
    console = Console(file=io.StringIO(), width=140)
    loss, beside, time = claim.run("nanogpt", data=data, console=console, quick=True)
    assert (loss.rival_value, str(loss.goal)) == (1.88, "value <= 1.88")
    assert loss.value == beside.value and beside.rival_value > 0 and beside.goal is None
    assert time.ratio == pytest.approx(time.rival_value / time.value)
    assert "264 characters of the last tenth" in loss.note


def test_without_data_the_claim_says_what_to_give() -> None:
    with pytest.raises(DataError, match=r"give it with --data: a text file, tinyshakespeare's input\.txt"):
        claim.run("nanogpt", console=Console(file=io.StringIO()))
