"""Reformer's files: read, written again, and refused by name where they say what cannot be mapped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from published import CLOSE, VOCAB, awake, configure, rewrite, round_trip, same_tensors, some_tokens
from published import transformers as tf
from published_reformer import CASES, both, reformer
from torch import Tensor

from formers import LSH, CheckpointError, ConfigError, hub, make
from formers.attention.lsh import LSHRule
from formers.spec import assign


@pytest.mark.parametrize("case", CASES)
def test_round_trip(case: str, tmp_path: Path) -> None:
    theirs, folder = reformer(tmp_path / "theirs", **CASES[case])
    again = round_trip(folder, tmp_path)
    tokens = some_tokens(length=13)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, theirs(tokens).logits)


def test_a_bare_model_has_no_head(tmp_path: Path) -> None:
    theirs, folder = reformer(tmp_path / "bare", "ReformerModel", attn_layers=["local"])
    with torch.no_grad():
        expected = theirs(some_tokens()).last_hidden_state
        torch.testing.assert_close(hub.load(folder)(some_tokens()).hidden, expected, **CLOSE)
        assert hub.import_folder(folder, tmp_path / "run").spec.head is None
        hub.export(tmp_path / "run", tmp_path / "out")
        again, told = tf.ReformerModel.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not any(told.values()), told
        assert torch.equal(again.eval()(some_tokens()).last_hidden_state, expected)


def test_old_files(tmp_path: Path) -> None:
    """They keep the masks' values, and the head's bias twice."""
    _, folder = reformer(tmp_path / "old")
    shutil.copytree(folder, tmp_path / "as made")

    def age(tensors: dict[str, Tensor]) -> None:
        layer = "reformer.encoder.layers.{}.attention.self_attention.{}"
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"].clone()
        tensors |= {layer.format(n, "mask_value_float16"): torch.tensor(-1e4) for n in (0, 1)}
        tensors[layer.format(1, "self_mask_value_float32")] = torch.tensor(-1e5)

    rewrite(folder, age)
    told = str(hub.import_folder(folder, tmp_path / "run"))
    assert "left out" in told and "self_mask_value_float32" in told
    hub.export(tmp_path / "run", tmp_path / "new")
    same_tensors(tmp_path / "as made", tmp_path / "new")


REFUSED = [
    ({"is_decoder": False}, "is_decoder is false, and can only be true: the local layers of an encoder wrap"),
    ({"is_decoder": ...}, "is_decoder is false, and can only be true"),
    ({"lsh_num_chunks_after": 1}, "lsh_num_chunks_after is 1, and can only be 0"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings is true, and can only be false: the head is twice as wide"),
    ({"attn_layers": ["local", "full"]}, "attn_layers is .*, and can only be a list of 'local' and 'lsh'"),
    ({"attn_layers": []}, "attn_layers is .*, and can only be a list"),
    ({"num_buckets": 4.5}, "num_buckets is 4.5, and can only be a whole number, or a list of some"),
    ({"axial_pos_shape": 48}, "axial_pos_shape is 48, and can only be a list of whole numbers"),
    ({"hidden_act": "mish"}, "hidden_act is \"mish\", and can only be one of"),
    ({"shorten": 3}, "shorten is unknown here"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_what_cannot_be_mapped_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    _, folder = reformer(tmp_path / "theirs")
    configure(folder, **changes)
    with pytest.raises(CheckpointError, match=told):
        hub.load(folder)


def test_a_shape_that_cannot_be_built_is_refused_with_its_mend(tmp_path: Path) -> None:
    _, folder = reformer(tmp_path / "theirs")
    configure(folder, axial_pos_embds_dim=[16, 16], num_buckets=5)
    with pytest.raises(ConfigError, match=r"2 problems(?s:.*)dims=\(16, 20\)(?s:.*)buckets=6|buckets=6(?s:.*)"):
        hub.load(folder)


SMALL: dict[str, Any] = {
    "vocab": VOCAB, "dim": 32, "depth": 3, "heads": 4, "hidden": 40, "layers": ("local", "lsh"), "chunk": 4,
    "local_chunk": 2, "rounds": 2, "buckets": 4, "shape": (6, 8), "dropout": 0.0, "feed_forward_chunk": None,
}  # fmt: skip
HASHING = "blocks[0].blocks[1].sublayers[0].select"


def test_members_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings that theirs has no others of; how the work is cut is nobody's business."""
    spec = assign(make("reformer", **SMALL), f"{HASHING}=LSH(4, 2, 4, once=False, wrap=True, plain_below=4)")
    for change in ("[0].heads_at_once=2", "[1].chunk=5"):
        spec = assign(spec, f"blocks[0].blocks[*].sublayers{change}")
    ours = awake(spec.build())
    hub.export(ours, tmp_path / "out")
    theirs, told = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values()), told
    expected, logits = both(theirs.eval(), ours, some_tokens(length=13), None, monkeypatch)
    torch.testing.assert_close(logits, expected, **CLOSE)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["attn_layers"], config["attention_head_size"]) == (["local", "lsh", "local"], 8)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (f"{HASHING}.once=True", "once is True, and would be read as False"),
        (f"{HASHING}.same_bucket=True", "same_bucket is True"),
        ("blocks[0].merge='mean'", "merge is 'mean'"),
        ("blocks[0].blocks[2].sublayers[0].pattern=Causal() & Window(3)", "pattern"),
        ("head=Untied()", "bias is False"),
    ],
)
def test_what_no_config_can_say_is_refused_by_its_path(change: str, told: str) -> None:
    spec = assign(make("reformer", **SMALL), f"{HASHING}=LSH(4, 2, 4, once=False, wrap=True, plain_below=4)")
    assert hub.spec_from_config(hub.config_from_spec(spec)) == spec
    with pytest.raises(ConfigError, match=f"reformer comes nearest, and cannot say it: 1 problem\n  1. .*{told}"):
        hub.config_from_spec(assign(spec, change))


def test_without_a_number_of_buckets_nothing_is_decided_for_later(tmp_path: Path) -> None:
    """The first sequence that theirs meets fixes their number; ours takes it of each sequence."""
    theirs, folder = reformer(tmp_path / "theirs", num_buckets=None)
    ours, long, short = hub.load(folder), some_tokens(1, 48), some_tokens(1, 12)
    assert next(m.spec for m in ours.modules() if isinstance(m, LSHRule)) == LSH(
        4, 2, once=False, wrap=True, plain_below=4
    )
    with torch.no_grad():
        theirs(short)
        assert theirs.config.num_buckets == 4
        before = ours(short).logits
        ours(long)
        assert torch.equal(ours(short).logits, before)


def test_the_default_member_is_as_large_as_the_published_model() -> None:
    """google/reformer-enwik8, whose heads are 128 wide."""
    shape = {
        "vocab_size": 258, "hidden_size": 1024, "attn_layers": ["local", "local", "lsh", "local"] * 3,
        "num_attention_heads": 8, "attention_head_size": 128, "feed_forward_size": 4096, "num_buckets": 512,
        "num_hashes": 4, "lsh_attn_chunk_length": 256, "local_attn_chunk_length": 128, "axial_pos_shape": [128, 512],
        "axial_pos_embds_dim": [256, 768], "max_position_embeddings": 65_536, "is_decoder": True,
    }  # fmt: skip
    config = tf.ReformerConfig(**shape)
    spec = hub.spec_from_config(config.to_dict())
    with torch.device("meta"):
        theirs, ours, member = tf.ReformerModelWithLMHead(config), spec.build(), make("reformer").build()
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert [sum(p.numel() for p in model.parameters()) for model in (ours, member)] == [count, count]
    wanted = spec.blocks[0].blocks[2].sublayers[0].select.replace(once=True, wrap=False, plain_below=None)
    assert make("reformer").blocks[0].blocks[2].sublayers[0].select == wanted
