"""A model's answer depends on its parameters and its input, and on nothing that happened before."""

import pytest
import torch
from subjects import DECODERS, SPECS, Stream, build, tokens


@pytest.mark.parametrize("name", list(SPECS))
def test_equal_calls_give_equal_answers(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, 14)
    before = {key: value.clone() for key, value in stream.model.state_dict().items()}
    first = stream.whole(inputs)
    stream.whole(tokens(2, 5, seed=3))
    stream.whole(inputs, torch.rand(2, 14) < 0.7)
    if name in DECODERS:
        stream.piece(inputs[:, :1], stream.piece(inputs, stream.begin())[1])
    torch.testing.assert_close(stream.whole(inputs), first, rtol=0, atol=0)
    for key, value in stream.model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", list(SPECS))
def test_training_calls_leave_nothing_behind(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, 14)
    first = stream.whole(inputs)
    stream.model.train()
    stream.whole(inputs)
    stream.model.eval()
    torch.testing.assert_close(stream.whole(inputs), first, rtol=0, atol=0)
