"""GPT-2, LLaMA and BLOOM: logits of transformers' models, with copied weights, and back again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    CLOSE,
    bloom,
    configure,
    decodes,
    gpt2,
    llama,
    padding,
    positions,
    rewrite,
    round_trip,
    saved,
    some_tokens,
)
from published import transformers as tf

from formers import hub, make

Make = Callable[..., tuple[Any, Path]]

CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "gpt2": (gpt2, {}),
    "gpt2 untied": (gpt2, {"tie_word_embeddings": False}),
    "gpt2 relu, default width": (gpt2, {"activation_function": "relu", "n_inner": None, "layer_norm_epsilon": 1e-3}),
    "llama, grouped keys": (llama, {}),
    "llama, a key head each": (llama, {"num_key_value_heads": 4}),
    "llama, one key head": (llama, {"num_key_value_heads": 1}),
    "llama tied": (llama, {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    "llama with biases": (llama, {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": (llama, {"head_dim": 12}),
    "bloom, 6 heads": (bloom, {}),
    "bloom, 4 heads": (bloom, {"n_head": 4, "layer_norm_epsilon": 1e-2}),
    "bloom untied": (bloom, {"tie_word_embeddings": False}),
}


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    make_model, changes = CASES[request.param]
    return make_model(tmp_path / "theirs", **changes)


def test_logits(pair: tuple[Any, Path]) -> None:
    theirs, folder = pair
    tokens = some_tokens()
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert expected.std() > 0.5  # large enough that 1e-4 says something
        torch.testing.assert_close(hub.load(folder)(tokens).logits, expected, **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_beside_padding(pair: tuple[Any, Path], side: str) -> None:
    theirs, folder = pair
    tokens, mask = some_tokens(), padding(side)
    # BLOOM has no positions to give: it counts real tokens by itself.
    given = {} if theirs.config.model_type == "bloom" else {"position_ids": positions(mask)}
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long(), **given).logits
        ours = hub.load(folder)(tokens, mask=mask).logits
    torch.testing.assert_close(ours[mask], expected[mask], **CLOSE)


def test_cached_decoding(pair: tuple[Any, Path]) -> None:
    with torch.no_grad():
        decodes(hub.load(pair[1]), some_tokens())


def test_cached_decoding_beside_padding(pair: tuple[Any, Path]) -> None:
    model, tokens, mask = hub.load(pair[1]), some_tokens(), padding("left")
    with torch.no_grad():
        whole = model(tokens, mask=mask).logits
        out = model(tokens[:, :8], mask=mask[:, :8])
        for t in range(8, tokens.shape[1]):
            out = model.step(tokens[:, t : t + 1], out.state, mask=mask[:, t : t + 1])
            torch.testing.assert_close(out.logits[:, 0], whole[:, t], **CLOSE)


def test_round_trip(pair: tuple[Any, Path], tmp_path: Path) -> None:
    theirs, folder = pair
    again = round_trip(folder, tmp_path)
    tokens = some_tokens()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, theirs(tokens).logits)


@pytest.mark.parametrize("base", ["GPT2Model", "BloomModel"])
def test_a_bare_model_ties_its_head(base: str, tmp_path: Path) -> None:
    theirs, _ = (gpt2 if base == "GPT2Model" else bloom)(tmp_path / "whole")
    folder = saved(theirs.transformer, tmp_path / "bare")
    with torch.no_grad():
        torch.testing.assert_close(hub.load(folder)(some_tokens()).logits, theirs(some_tokens()).logits, **CLOSE)


def test_buffers_of_old_files_are_left_out_by_name(tmp_path: Path) -> None:
    theirs, folder = gpt2(tmp_path / "old")

    def age(tensors: dict[str, torch.Tensor]) -> None:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors |= bare | {"h.0.attn.bias": torch.ones(1, 1, 24, 24).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}

    rewrite(folder, age)
    told = str(hub.import_folder(folder, tmp_path / "run"))
    assert "left out h.0.attn.bias, h.0.attn.masked_bias" in told
    with torch.no_grad():
        torch.testing.assert_close(hub.load(folder)(some_tokens()).logits, theirs(some_tokens()).logits, **CLOSE)


def test_older_rotary_settings(tmp_path: Path) -> None:
    theirs, folder = llama(tmp_path / "old")
    configure(folder, rope_parameters=..., rope_theta=500.0, rope_scaling=None)
    with torch.no_grad():
        torch.testing.assert_close(hub.load(folder)(some_tokens()).logits, theirs(some_tokens()).logits, **CLOSE)


def test_defaults_are_the_members() -> None:
    assert hub.spec_from_config(tf.GPT2Config().to_dict()) == make("gpt2", dim=768)
    explicit = hub.spec_from_config(tf.LlamaConfig().to_dict())
    assert explicit.replace(blocks=()) == make("llama").replace(blocks=())
    attention = explicit.blocks[0].sublayers[0]
    assert attention.replace(kv_heads=None, head_dim=None) == make("llama").blocks[0].sublayers[0]
    shape = {"hidden_size": 1024, "n_layer": 24, "n_head": 16}
    assert hub.spec_from_config(tf.BloomConfig(**shape).to_dict()) == make("bloom")
