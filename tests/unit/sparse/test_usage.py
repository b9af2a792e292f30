"""Every unit that a real token chose is counted, once, and the report says which are dead."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from formers import Attention, Block, CrossAttention, Decoder, Encoder, EncoderDecoder, stack
from formers.call import Call, add_records
from formers.places import Places
from formers.sparse import BlockFF, SparseFF, SwitchFF, UnitCounts, usage
from formers.spec import Site

KINDS = {"sparse": SparseFF(24, 6, 4), "blocks": BlockFF(24, 6), "switch": SwitchFF(24, 6)}


def build(kind: str, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    layer = KINDS[kind].replace(**fields).build(Site(8, path=(2, 1)))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("chunk", [None, 4])
def test_padding_counts_for_nothing(kind: str, chunk: int | None) -> None:
    layer, x = build(kind, chunk=chunk), torch.randn(3, 10, 8)
    real = torch.rand(3, 10) < 0.6
    call = Call(Places(torch.arange(10)[None], real))
    out = layer(x, call)
    counts = sum(out.records["units 2.1"])
    chosen = out.choices if chunk is None else torch.cat(out.choices, 1)
    expected = torch.stack([torch.bincount(of_block[real], minlength=6) for of_block in chosen.unbind(-1)])
    assert torch.equal(counts, expected)
    other = layer(torch.where(real[..., None], x, 7.0), call)
    assert torch.equal(sum(other.records["units 2.1"]), counts)


@pytest.mark.parametrize("kind", list(KINDS))
def test_steps_of_decoding_count_nothing(kind: str) -> None:
    layer, x = build(kind).eval(), torch.randn(2, 5, 8)
    assert not layer(x, Call(Places.run(0, 5))).records
    (counts,) = layer(x, Call(Places.run(0, 5), remember=False)).records["units 2.1"]
    assert (counts.sum(-1) == 10).all()


def test_the_report_tells_dead_units_and_how_many_do_the_work() -> None:
    layer = build("sparse").eval()
    with torch.no_grad():
        layer.controller_out.weight.zero_()
        layer.controller_out.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0, 0.0, 0.0]).repeat(4))
    call = Call(Places.run(0, 5), remember=False)
    report = usage(layer(torch.randn(2, 5, 8), call).records)
    assert list(report) == ["2.1"] and report["2.1"].counts[:, 1].tolist() == [10] * 4
    assert report["2.1"].dead == pytest.approx(5 / 6) and report["2.1"].effective == pytest.approx(1)


def test_several_passes_add_up() -> None:
    half = {"units 0.1": (torch.tensor([[4, 0, 0, 0]]),), "exits": (torch.ones(1),)}
    other = {"units 0.1": (torch.tensor([[0, 2, 2, 0]]), torch.tensor([[0, 0, 0, 0]]))}
    report = usage(add_records(half, other))
    assert report["0.1"].counts.tolist() == [[4, 2, 2, 0]] and report["0.1"].dead == 0.25
    assert report["0.1"].effective == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_a_layer_that_met_no_token_is_all_dead() -> None:
    assert usage({"units 0.1": (torch.zeros(2, 4, dtype=torch.int64),)})["0.1"].dead == 1


def test_an_evaluation_counts_all_its_passes() -> None:
    units = UnitCounts()
    assert units.figures() == {}
    units.add({"exits": (torch.ones(1),)})
    assert units.figures() == {}
    units.add({"units 0.1": (torch.tensor([[4, 0, 0, 0]]),), "units 1.1": (torch.tensor([[1, 1]]),)})
    units.add({"units 0.1": (torch.tensor([[0, 2, 2, 0]]),), "units 1.1": (torch.tensor([[1, 1]]),)})
    of_first = math.exp(0.5 * math.log(2) + 0.5 * math.log(4))
    assert units.figures() == pytest.approx({"dead_units": 1 / 6, "effective_units": (of_first + 2) / 2})


def test_models_report_by_place_and_side() -> None:
    sparse = SparseFF(24, 6, 4)
    blocks = stack(Block((Attention(2), sparse)), times=2)
    decoder = Decoder("model", 11, 8, blocks)
    tokens = torch.randint(11, (2, 9))
    assert list(usage(decoder.build()(tokens).records)) == ["0.1", "1.1"]
    target = Decoder("target", 11, 8, (Block((Attention(2), CrossAttention(2), sparse)),))
    pair = EncoderDecoder("pair", Encoder("source", 11, 8, blocks), target).build()
    assert list(usage(pair(tokens, tokens).records)) == ["source.0.0.1", "source.0.1.1", "target.1.0.2"]
