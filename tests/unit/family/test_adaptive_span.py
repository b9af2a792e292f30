"""Adaptive attention span as a model: its size, its forms, and decoding from a cache as long as its spans."""

import torch

from formers import MEMBERS, make
from formers.model import parameter_count

SMALL = MEMBERS["adaptive_span"].small | {"dropout": 0.0}


def test_the_defaults_are_the_small_model_on_enwik8() -> None:
    with torch.device("meta"):
        count = parameter_count(make("adaptive_span", vocab=205).build())
    table = 8192 * 64
    assert count == 44_305_709
    assert round((count - 11 * table) / 1e6, 1) == 38.5  # the paper's 38M: one table of positions for all layers


def test_spans_begin_at_nothing_or_dynamic_ones_at_a_tenth() -> None:
    fixed, dynamic = (make("adaptive_span", dynamic=each).blocks[0].sublayers[0].spans for each in (False, True))
    assert (fixed.begin, dynamic.begin) == (0.0, 0.1)
    assert make("adaptive_span", dynamic=True, begin=0.5).blocks[0].sublayers[0].spans.begin == 0.5


def test_the_cache_of_a_model_grows_as_far_as_its_spans() -> None:
    torch.manual_seed(0)
    model = make("adaptive_span", **SMALL | {"span": 1000, "begin": 0.0}).build().eval()
    model.stack.blocks[1].sublayers[0].spans.shares.data[2] = 0.1
    text = torch.randint(0, 40, (1, 250))
    whole = model(text)
    assert [block[0].places.length for block in whole.state.blocks] == [63, 127]
    state, steps = None, []
    for t in range(250):
        out = model.step(text[:, t : t + 1], state)
        state = out.state
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole.logits, rtol=1e-4, atol=1e-5)
    assert [block[0].places.length for block in state.blocks] == [63, 127]
