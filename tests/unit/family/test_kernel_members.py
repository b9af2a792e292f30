"""Performer and random feature attention as members."""

import pytest
import torch

from formers import MEMBERS, ConfigError, make
from formers.attention.kernel.layer import KernelAttentionLayer
from formers.state import select, tensors


@pytest.mark.parametrize("name", ["performer", "rfa", "rfa_gate"])
def test_a_state_has_one_size_and_rows_that_can_be_chosen(name: str) -> None:
    torch.manual_seed(0)
    model = make(name, **MEMBERS[name].small).build().eval()
    tokens = torch.randint(40, (2, 90))
    with torch.no_grad():
        early, late = model(tokens[:, :2]).state, model(tokens).state
        assert [t.shape for t in tensors(early)] == [t.shape for t in tensors(late)]
        swapped = model.step(tokens[:, :1], select(late, torch.tensor([1, 0]))).logits
        wanted = model.step(tokens[:, :1].flip(0), late).logits.flip(0)
    torch.testing.assert_close(swapped, wanted)


def test_a_translator_decodes_with_a_state_that_does_not_grow_with_the_source() -> None:
    model = make("rfa_translation", **MEMBERS["rfa_translation"].small).build().eval()
    sizes = []
    for length in (3, 60):
        state = model.start(torch.randint(40, (1, length)))
        state = model.step(torch.randint(40, (1, 1)), state).state
        sizes.append(sum(t.numel() for t in tensors(state)))
    assert sizes[0] == sizes[1]


def test_a_gate_is_one_number_a_head() -> None:
    small = MEMBERS["rfa_gate"].small
    layers = [m for m in make("rfa_gate", **small).build().modules() if isinstance(m, KernelAttentionLayer)]
    assert all(layer.gate.weight.shape == (small["heads"], small["dim"]) for layer in layers)
    assert not any(m.gate for m in make("rfa", **MEMBERS["rfa"].small).build().modules() if hasattr(m, "gate"))


@pytest.mark.parametrize(("name", "kernel"), [("performer", "softmx"), ("performer_encoder", "?"), ("rfa", "arcos")])
def test_an_unknown_kernel_is_named(name: str, kernel: str) -> None:
    with pytest.raises(ConfigError, match=r"no kernel"):
        make(name, kernel=kernel)
