"""Decoding in a straight line gives what the modules give, or names the part that it has no rule for."""

import pytest
import torch
from subjects import DECODERS, SPECS, build, tokens

from formers import Decoder, FormersError
from formers.decode.straight import Straight
from formers.errors import NoRuleError

RULES = {
    "decoder with sinusoidal", "decoder with sinusoidal halves", "decoder with learned", "decoder with axial",
    "decoder with rotary", "decoder with rotary adjacent", "decoder with t5", "decoder with alibi",
    "decoder with window", "decoder with grouped heads", "decoder with one key head", "decoder with wide heads",
    "decoder with macaron", "decoder with summed axes", "gpt", "gpt2", "llama", "bloom",
}  # fmt: skip
PLAIN = [name for name in DECODERS if isinstance(SPECS[name], Decoder)]


@pytest.mark.parametrize("name", [name for name in PLAIN if name in RULES])
@pytest.mark.parametrize("prompt", [1, 9])
def test_a_straight_line_equals_the_modules(name: str, prompt: int) -> None:
    model, inputs = build(SPECS[name]), tokens(1, 31)
    with torch.inference_mode():
        whole = model(inputs).logits[0]
        straight = Straight(model, model(inputs[:, :prompt]).state, room=4)
        steps = [straight(inputs[:, t : t + 1]) for t in range(prompt, 25)]
        torch.testing.assert_close(torch.cat(steps), whole[prompt:25])
        rest = model.step(inputs[:, 25:], straight.state(), logits_at=slice(None)).logits
        torch.testing.assert_close(rest[0], whole[25:])


@pytest.mark.parametrize("name", [name for name in PLAIN if name not in RULES])
def test_a_part_without_a_rule_is_named(name: str) -> None:
    model = build(SPECS[name])
    with pytest.raises(NoRuleError, match=r"(Layer|Rule|Head) has no rule|Causal\(\) & .* has no rule"):
        Straight(model, model(tokens(1, 3)).state)


def test_padded_and_batched_rows_are_left_to_the_modules() -> None:
    model, inputs = build(SPECS["gpt2"]), tokens(2, 5)
    mask = torch.ones_like(inputs, dtype=torch.bool)
    mask[0, 0] = False
    for state in (model(inputs).state, model(inputs, mask=mask).state, None):
        with pytest.raises(NoRuleError, match="not decoded in a straight line"):
            Straight(model, state)


def test_a_straight_line_ends_where_the_positions_do() -> None:
    model = build(SPECS["gpt2"])
    with torch.inference_mode():
        straight = Straight(model, model(tokens(1, 63)).state)
        straight(tokens(1, 1))
        with pytest.raises(FormersError, match="has 64 positions"):
            straight(tokens(1, 1))
