"""A spec survives JSON, a model survives saving, and a spec tells the size of its model."""

import pytest
import torch
from subjects import SPECS, Stream, build, tokens

from formers.model import parameter_count
from formers.spec import from_json


@pytest.mark.parametrize("name", list(SPECS))
def test_spec_to_json_and_back(name: str) -> None:
    assert from_json(SPECS[name].to_json()) == SPECS[name]


@pytest.mark.parametrize("name", list(SPECS))
def test_a_saved_model_gives_the_same_logits(name: str) -> None:
    model, inputs = build(SPECS[name]), tokens(2, 11)
    again = build(from_json(SPECS[name].to_json()), seed=9)
    assert not torch.equal(Stream(again, 2).whole(inputs), Stream(model, 2).whole(inputs))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(Stream(again, 2).whole(inputs), Stream(model, 2).whole(inputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", list(SPECS))
def test_the_size_is_known_without_memory(name: str) -> None:
    with torch.device("meta"):
        empty = SPECS[name].build()
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert parameter_count(empty) == parameter_count(build(SPECS[name]))
