"""Linformer and FNet as members."""

from typing import Any

import pytest
import torch

from formers import (
    Attention,
    ConfigError,
    ConvolvedSlots,
    Fourier,
    Layerwise,
    LinearSlots,
    MaskedLM,
    PooledSlots,
    make,
)

TINY = {"vocab": 40, "dim": 16, "heads": 4, "hidden": 16, "length": 32}


def layers(spec: Any) -> list[Any]:
    blocks = spec.blocks[0].blocks if isinstance(spec.blocks[0], Layerwise) else spec.blocks
    return [block.sublayers[0] for block in blocks]


def test_defaults() -> None:
    spec = make("linformer")
    assert [layer.slots for layer in layers(spec)] == [128] * 12
    assert spec.max_length == layers(spec)[0].length == 512
    assert isinstance(spec.head, MaskedLM)


def test_upper_layers_may_have_fewer_slots() -> None:
    spec = make("linformer", depth=3, slots=(16, 8, 4), **TINY)
    assert [layer.slots for layer in layers(spec)] == [16, 8, 4]
    assert spec.build()(torch.zeros(1, 7, dtype=torch.int64)).logits.shape == (1, 7, 40)


@pytest.mark.parametrize(
    ("given", "compress"),
    [
        ({"share": "none"}, LinearSlots("none")),
        ({}, LinearSlots("headwise")),
        ({"share": "keys_values"}, LinearSlots("keys_values")),
        ({"share": "layers"}, LinearSlots("keys_values")),
        ({"by": "mean"}, PooledSlots("mean")),
        ({"by": "max"}, PooledSlots("max")),
        ({"by": "convolution", "share": "none"}, ConvolvedSlots("none")),
    ],
)
def test_sharing_and_ways(given: dict[str, Any], compress: Any) -> None:
    spec = make("linformer", depth=2, slots=8, **TINY, **given)
    assert [layer.compress for layer in layers(spec)] == [compress] * 2
    assert isinstance(spec.blocks[0], Layerwise) == (given.get("share") == "layers")
    spec.build()


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("linformer", {"slots": (4, 4)}, r"slots=\(4, 4\) tells 2 numbers for depth=12"),
        ("linformer", {"by": "mean", "share": "none"}, "pooling has no parameters"),
        ("linformer", {"by": "convolution", "share": "layers"}, "layers share one matrix"),
        ("linformer", {"slots": (8,) * 11 + (4,), "share": "layers"}, "one matrix cannot be of 8 slots"),
        ("fnet", {"attend": 13}, "of 12 layers the last 13 cannot attend: attend=12"),
        ("fnet_hybrid", {"attend": -1}, "attend=0"),
    ],
)
def test_what_cannot_be_made_is_told(name: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(name, **TINY, **given).build()


def test_the_last_layers_of_a_hybrid_attend() -> None:
    kinds = [type(layer) for layer in layers(make("fnet_hybrid", **TINY))]
    assert kinds == [Fourier] * 10 + [Attention] * 2
    assert all(isinstance(layer, Fourier) for layer in layers(make("fnet", **TINY)))
    assert make("fnet_hybrid", attend=0).replace(name="fnet") == make("fnet")


def test_nothing_but_the_feed_forward_is_learned_in_a_layer_of_fnet() -> None:
    model = make("fnet", depth=1, **TINY).build()
    assert not any("sublayers.0" in name for name, _ in model.named_parameters())


def test_a_linformer_is_not_read_as_any_published_model() -> None:
    from formers import hub

    with pytest.raises(ConfigError, match="no family of published checkpoints has this model"):
        hub.config_from_spec(make("linformer"))
