"""BERT's masking."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formers.data.batches import mask_tokens
from formers.data.chance import generator
from formers.errors import DataError

MASK, PAD, VOCAB = 1, 0, 1000
SPECIAL = (PAD, MASK, 2)


def test_the_shares_are_those_of_the_paper():
    tokens = torch.randint(3, VOCAB, (200, 500), generator=generator(0, 0))
    inputs, chosen = mask_tokens(tokens, MASK, VOCAB, SPECIAL, generator(0, 1))
    assert (chosen.sum(dim=1) == 75).all(), "15 % of every row"
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    hidden = (inputs[chosen] == MASK).float().mean()
    kept = (inputs[chosen] == tokens[chosen]).float().mean()
    drawn = inputs[chosen & (inputs != MASK) & (inputs != tokens)]
    torch.testing.assert_close(hidden, torch.tensor(0.8), atol=0.015, rtol=0)
    torch.testing.assert_close(kept, torch.tensor(0.1), atol=0.015, rtol=0)
    torch.testing.assert_close(len(drawn) / int(chosen.sum()), 0.1, atol=0.015, rtol=0)
    assert drawn.min() >= 3
    assert 400 < drawn.float().mean() < 600, "drawn from the whole vocabulary"
    torch.testing.assert_close(chosen.float().mean(dim=0), torch.full((500,), 0.15), atol=0.13, rtol=0)


@given(st.lists(st.lists(st.integers(0, 9), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(0, 99))
def test_special_tokens_stay_and_every_row_has_something_to_predict(rows, step):
    tokens = torch.tensor(rows)
    inputs, chosen = mask_tokens(tokens, MASK, 10, SPECIAL, generator(0, step))
    special = tokens <= 2
    assert not chosen[special].any()
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    ordinary = (~special).sum(dim=1)
    assert torch.equal(chosen.sum(dim=1), (ordinary * 0.15).round().long().clamp(min=1).minimum(ordinary))
    assert ((inputs[chosen] == MASK) | (inputs[chosen] > 2)).all()


def test_all_chance_comes_from_the_generator():
    tokens = torch.randint(3, VOCAB, (4, 50), generator=generator(0, 0))
    results = [mask_tokens(tokens, MASK, VOCAB, SPECIAL, generator(0, step)) for step in (5, 5, 6)]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][1], results[2][1])


def test_the_rate_is_heeded():
    tokens = torch.full((2, 40), 7)
    assert mask_tokens(tokens, MASK, VOCAB, SPECIAL, generator(0, 0), rate=0.4)[1].sum(dim=1).tolist() == [16, 16]
    assert mask_tokens(tokens, MASK, VOCAB, SPECIAL, generator(0, 0), rate=1)[1].all()


@pytest.mark.parametrize("rate", [0, -0.1, 1.1])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(DataError, match="no share of the tokens"):
        mask_tokens(torch.full((1, 4), 7), MASK, VOCAB, SPECIAL, generator(0, 0), rate=rate)


def test_a_vocabulary_of_special_ids_alone_is_refused():
    with pytest.raises(DataError, match="special"):
        mask_tokens(torch.full((1, 4), 2), MASK, 3, SPECIAL, generator(0, 0))
