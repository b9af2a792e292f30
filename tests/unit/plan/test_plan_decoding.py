"""Planned states against those that models really keep."""

import pytest
import torch

from formers import MEMBERS, make
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.plan.decoding import DecodingPlan, plan_decoding
from formers.plan.device import DEVICES
from formers.plan.setup import Setup
from formers.plan.state import state_bytes
from formers.state import Log

LENGTH = 40


def planned(name: str, streams: int = 1, precision: str = "fp32", memory: int = 10**9) -> DecodingPlan:
    spec = make(name, **MEMBERS[name].small)
    return plan_decoding(Setup(spec, 2, DEVICES["a100"], memory, 0.5), streams, LENGTH, precision)


@pytest.mark.parametrize("name", ["gpt2", "llama", "transformer", "performer", "compressive_transformer"])
def test_a_planned_state_is_as_large_as_a_real_one(name: str) -> None:
    spec = make(name, **MEMBERS[name].small)
    model, tokens = spec.build().eval(), torch.zeros(1, LENGTH, dtype=torch.int64)
    with torch.no_grad():
        if isinstance(spec, EncoderDecoder):
            state = model.step(tokens[:, :-1], model.start(tokens)).state
        else:
            state = model(tokens[:, :-1]).state
        state = model.step(tokens[:, -1:], state).state
    assert planned(name).state == state_bytes(state)


def test_more_streams_read_more_and_no_weights_twice() -> None:
    one, many = planned("gpt2"), planned("gpt2", streams=8)
    assert many.memory["state"] == 8 * one.state
    assert many.moved - one.moved <= 7 * one.state + one.weights
    assert many.rate > one.rate
    assert planned("gpt2", precision="bf16").weights == one.weights / 2


def test_a_state_larger_than_a_device_does_not_fit() -> None:
    one = planned("gpt2")
    assert one.fits
    tight = planned("gpt2", streams=one.most_streams + 1)
    assert not tight.fits


def test_what_reads_whole_texts_does_not_decode() -> None:
    with pytest.raises(ConfigError, match="leave --decode out"):
        planned("bert")


def test_logs_that_share_a_buffer_count_once() -> None:
    log = Log(torch.zeros(1, 1, 4, 2))
    assert state_bytes((log, log)) == 4 * 2 * 4
