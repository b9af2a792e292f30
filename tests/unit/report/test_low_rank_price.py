"""The price of attention to slots and of Fourier mixing, worked out by hand, and what is told in place of a drawing."""

import math
from pathlib import Path
from typing import Any

import pytest

from formers import (
    MLP,
    Attention,
    Block,
    ConvolvedSlots,
    Decoder,
    Encoder,
    EncoderDecoder,
    Fourier,
    Layerwise,
    LinearSlots,
    Linformer,
    LinformerCross,
    PooledSlots,
    make,
)
from formers.family import MEMBERS
from formers.report.cost import cost
from formers.report.gallery import draw_gallery
from formers.report.no_pairs import undrawn

DIM, LENGTH, SLOTS = 16, 96, 6
PROJECT, PAIRS = 2 * DIM * DIM, 4 * DIM * SLOTS
BY_SLOT, OF_ALL = PROJECT * 2 * SLOTS / LENGTH, PROJECT * 2


@pytest.mark.parametrize(
    ("compress", "keys_values", "mixing"),
    [
        (LinearSlots("none"), OF_ALL, 2 * SLOTS * 2 * DIM),
        (LinearSlots("headwise"), BY_SLOT, 2 * SLOTS * 2 * DIM),
        (LinearSlots("keys_values"), BY_SLOT, 2 * SLOTS * DIM),
        (PooledSlots("mean"), BY_SLOT, 0),
        (PooledSlots("max"), OF_ALL, 0),
        (ConvolvedSlots(), OF_ALL, 2 * 2 * DIM),
    ],
    ids=repr,
)
def test_slots(compress: Any, keys_values: float, mixing: float) -> None:
    spec = Encoder("mine", 40, DIM, (Block((Linformer(2, LENGTH, SLOTS, compress), MLP(8))),))
    (row,) = (row for row in cost(spec, LENGTH).parts if row.name == "Linformer")
    assert row.price.operations == pytest.approx(2 * PROJECT + keys_values + mixing + PAIRS)


def test_a_matrix_for_all_layers_is_counted_once() -> None:
    blocks = (Block((Linformer(2, LENGTH, SLOTS, LinearSlots("keys_values")), MLP(8))),) * 3
    (row,) = (r for r in cost(Encoder("mine", 40, DIM, (Layerwise(blocks),)), 8).parts if r.name == "Linformer")
    assert row.price.parameters == SLOTS * LENGTH + 3 * 4 * (DIM * DIM + DIM)


def test_slots_of_a_source() -> None:
    source = Encoder("source", 40, DIM, (Block((Attention(2), MLP(8))),))
    cross = Block((Attention(2), LinformerCross(2, LENGTH, SLOTS), MLP(8)))
    spec = EncoderDecoder("pair", source, Decoder("target", 40, DIM, (cross,)))
    for length in (24, 96):
        (row,) = (row for row in cost(spec, length).parts if row.name == "target LinformerCross")
        assert row.price.last == 2 * PROJECT + PAIRS and row.price.state == 4 * 2 * DIM * SLOTS


def test_fourier() -> None:
    spec = Encoder("mine", 40, DIM, (Block((Fourier(), MLP(8))),))
    (row,) = (row for row in cost(spec, LENGTH).parts if row.name == "Fourier")
    assert row.price.operations == pytest.approx(2.5 * DIM * math.log2(DIM * LENGTH)) and row.price.parameters == 0


def test_what_is_told_in_place_of_a_drawing() -> None:
    (told, paths), *more = undrawn(make("linformer", by="mean", slots=64)).items()
    assert "64 slots, each made of 8 tokens side by side" in told and len(paths) == 12 and not more
    assert [len(paths) for paths in undrawn(make("fnet_hybrid")).values()] == [10]
    assert not undrawn(make("bert"))


def test_the_gallery_says_why_there_is_no_picture(tmp_path: Path) -> None:
    page = draw_gallery(tmp_path, [MEMBERS[name] for name in ("linformer", "fnet", "fnet_hybrid")]).read_text()
    assert "meets 12 slots, sums of all tokens" in page and "meets 8 slots" in page
    assert "A Fourier transform brings every token to every other" in page
    assert [path.name for path in tmp_path.glob("*.png")] == ["fnet_hybrid.png"]
