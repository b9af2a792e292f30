"""The claim on Transformer-XL, at its smallest."""

import io

import torch
from rich.console import Console

from formers import claim
from formers.claim.cases.transformer_xl import TINY, forgetful
from formers.family import make


def test_a_memory_is_held_against_none() -> None:
    rows = claim.run("transformer_xl", console=Console(file=io.StringIO(), width=160), quick=True)
    own, gain, *longer, forgetting = rows
    assert own.rival_value - own.value == gain.value
    assert str(gain.goal) == "value >= 0.1" and [str(row.goal) for row in longer] == ["value <= 0.02"] * len(
        TINY.longer
    )
    assert forgetting.rival_value == own.rival_value and all(0 < row.value < 10 for row in (own, forgetting))


def test_the_forgetful_model_sees_its_segment_alone() -> None:
    model = make("transformer_xl", vocab=9, dim=8, depth=1, heads=2, hidden=8, segment=4, memory=8).build().eval()
    tokens = torch.arange(8)[None] % 9
    alone = model(tokens[:, 4:]).logits
    torch.testing.assert_close(forgetful(model, 4)(tokens).logits[:, 4:], alone)
    assert (model(tokens).logits[:, 4:] - alone).abs().max() > 1e-5
