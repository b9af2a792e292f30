"""Spans are told once for every real query, passes add up, and the report says what they saved."""

from typing import Any

import pytest
import torch

from formers import HeadSpans, QuerySpans, SpanAttention
from formers.attention.span_usage import SpanTally, span_usage, told_spans
from formers.call import Call, add_records
from formers.places import Places
from formers.spec import Site


def built(**fields: Any) -> Any:
    torch.manual_seed(0)
    return SpanAttention(2, 100, **fields).build(Site(8, causal=True, path=(0, 1)))


def test_padding_tells_nothing() -> None:
    layer, x = built(spans=QuerySpans(0.3)), torch.randn(3, 10, 8)
    real = torch.rand(3, 10) < 0.6
    (told,) = layer(x, Call(Places(torch.arange(10)[None], real), remember=False)).records["spans 0.1"]
    spans = 100 * layer.spans(x).transpose(1, 2)[real]
    torch.testing.assert_close(told[:, 0], spans.sum(0))
    assert (told[:, 1] == int(real.sum())).all()


def test_steps_of_decoding_tell_nothing_and_training_does() -> None:
    layer, x = built(), torch.randn(2, 5, 8)
    assert layer.train()(x, Call(Places.run(0, 5))).records
    assert not layer.eval()(x, Call(Places.run(0, 5))).records
    assert layer(x, Call(Places.run(0, 5), remember=False)).records


def test_what_a_layer_knows_of_itself_is_what_a_pass_tells() -> None:
    layer = built(spans=HeadSpans(0.0), ramp=8)
    layer.spans.shares.data.copy_(torch.tensor([0.1, 0.6]))
    for length in (1, 63, 400):
        out = layer(torch.randn(3, length, 8), Call(Places.run(0, length), remember=False))
        (told,), usage = span_usage(out.records).values(), layer.usage(length)
        assert told.spans == pytest.approx([10, 60], rel=1e-5) == usage.spans and told.mean == pytest.approx(35)
        assert told.saved == pytest.approx(usage.saved)
    assert 0.1 < usage.saved < 0.5
    assert layer.usage(63).saved == 0
    assert built(spans=QuerySpans()).usage(400) is None


def test_passes_add_up_and_sides_stay_apart() -> None:
    one = told_spans(torch.tensor([[[4.0], [8.0]]]), [([0], 50), ([1], 100)], 100, Places.run(0, 10), 2)
    assert one.tolist() == [[80, 20, 100, 200], [160, 20, 200, 200]]
    other = told_spans(torch.tensor([[[1.0], [2.0]]]), [([0, 1], 20)], 100, Places.run(0, 60), 1)
    usage = span_usage(add_records({"spans 0.1": (one,), "exits": (torch.ones(1),)}, {"spans 0.1": (other,)}))
    assert usage["0.1"].spans == pytest.approx([140 / 80, 280 / 80])
    assert usage["0.1"].saved == pytest.approx(1 - 340 / 600)
    assert list(span_usage({"source.spans 0.1": (one,)})) == ["source.0.1"]


def test_an_evaluation_tells_the_mean_of_all_layers() -> None:
    tally = SpanTally()
    tally.add({"units 0.1": (torch.ones(1, 4),)})
    assert tally.figures() == {}
    head = torch.tensor([[10.0, 2, 30, 40]])
    tally.add({"spans 0.1": (head,), "spans 1.1": (3 * head,)})
    tally.add({"spans 0.1": (head,), "spans 1.1": (torch.tensor([[0.0, 4, 40, 40]]),)})
    assert tally.figures() == pytest.approx({"mean_span": (5 + 3) / 2, "saved_scores": 1 - 190 / 240})
