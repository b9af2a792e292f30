"""Absolute positions that long tokens alone have."""

import pytest
import torch

from formers import Embedding, FormersError, Learned, LongOnly, Sinusoidal, make
from formers.spec import from_json

GLOBAL = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
MARKS = {"global": GLOBAL, "segment": torch.zeros_like(GLOBAL)}


def embedded(position: object, tokens: torch.Tensor, **given: object) -> torch.Tensor:
    torch.manual_seed(0)
    spec = make("etc", vocab=9, dim=8, depth=1, heads=2, hidden=8).replace(embedding=Embedding(position))
    model, seen = spec.build(), []
    model.embedding.register_forward_hook(lambda module, inputs, out: seen.append(out - module.tokens(inputs[0])))
    model(tokens, **given)
    return seen[0]


@pytest.mark.parametrize("position", [Learned(7), Sinusoidal()])
def test_long_tokens_are_counted_among_themselves(position: object) -> None:
    tokens = torch.arange(6).expand(2, -1)
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    alone = embedded(position, tokens[:1])[0]
    placed = embedded(LongOnly(position), tokens, mask=mask, marks=MARKS)
    torch.testing.assert_close(placed[0], torch.cat([torch.zeros(2, 8), alone[:4]]))
    torch.testing.assert_close(placed[1][mask[1]], torch.cat([torch.zeros(1, 8), alone[:3]]))
    torch.testing.assert_close(embedded(LongOnly(position), tokens[:1])[0], alone)


def test_the_limit_is_of_long_tokens() -> None:
    tokens = torch.arange(6).expand(2, -1)
    embedded(LongOnly(Learned(5)), tokens, marks=MARKS)
    with pytest.raises(FormersError, match="has 4 positions"):
        embedded(LongOnly(Learned(4)), tokens, marks=MARKS)
    assert LongOnly(Learned(5)).max_length == 5 and LongOnly(Sinusoidal()).max_length is None


def test_it_is_kept_as_json() -> None:
    spec = make("etc").replace(embedding=Embedding(LongOnly(Learned(5))))
    assert from_json(spec.to_json()) == spec
