"""Models of our own that published families can hold, and those that none of them can."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import CLOSE, VOCAB, awake, bloom, gpt2, marian, same_tensors, some_tokens
from published import transformers as tf

from formers import CheckpointError, ConfigError, T5Buckets, hub, make
from formers.data.tokenizer import ByteTokenizer
from formers.encoder_decoder import EncoderDecoder
from formers.spec import assign

SMALL = {"vocab": VOCAB, "dim": 32, "depth": 2, "heads": 4, "hidden": 40}
MEMBERS: dict[str, dict[str, Any]] = {
    "gpt2": {**SMALL, "length": 24},
    "bert": {**SMALL, "length": 24},
    "llama": {**SMALL, "kv_heads": 2, "theta": 300.0},
    "roformer": SMALL,
    "bloom": {**SMALL, "hidden": None},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_are_exported(tmp_path: Path, name: str) -> None:
    ours = awake(make(name, **MEMBERS[name]).build())
    hub.export(ours, tmp_path / "out")
    auto = tf.AutoModelForMaskedLM if name in ("bert", "roformer") else tf.AutoModelForCausalLM
    theirs, told = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values()), told
    with torch.no_grad():
        expected = ours(some_tokens()).logits
        torch.testing.assert_close(theirs.eval()(some_tokens()).logits, expected, **CLOSE)
        assert torch.equal(hub.load(tmp_path / "out")(some_tokens()).logits, expected)


def marian_shaped() -> EncoderDecoder:
    """The vanilla Transformer, as far as Marian can hold it: sines before cosines, and a bias for each token."""
    spec = make("transformer", **{**SMALL, "vocab": 260})
    for change in (
        "source.embedding.position.layout=halves",
        "target.embedding.position.layout=halves",
        "target.head.bias=true",
    ):
        spec = assign(spec, change)
    return spec


def test_an_encoder_decoder_is_exported(tmp_path: Path) -> None:
    ours = awake(marian_shaped().build())
    hub.export(ours, tmp_path / "out", ByteTokenizer(("end", "start", "pad")))
    theirs, told = tf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values()), told
    ids = (theirs.config.decoder_start_token_id, theirs.config.eos_token_id, theirs.config.pad_token_id)
    assert ids == (257, 256, 258)
    source, target = some_tokens(seed=7), some_tokens(seed=8)
    with torch.no_grad():
        expected = ours(source, target).logits
        torch.testing.assert_close(theirs.eval()(source, decoder_input_ids=target).logits, expected, **CLOSE)


def test_an_encoder_decoder_needs_to_know_where_it_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"which id the decoder starts from.*give the tokenizer"):
        hub.export(marian_shaped().build(), tmp_path / "out")
    _, folder = marian(tmp_path / "theirs")
    hub.import_folder(folder, tmp_path / "run")
    hub.export(tmp_path / "run", tmp_path / "out")  # the imported config.json knows


REFUSED: list[tuple[str, str, str]] = [
    ("gpt2", "blocks[*].sublayers[0].projection.bias=false", "projection.bias is False, and would be read as True"),
    ("gpt2", "blocks[1].sublayers[0].heads=8", r"blocks\[1\].sublayers\[0\].heads is 8, and would be read as 4"),
    ("gpt2", "embedding.scaled=true", "embedding.scaled is True, and would be read as False"),
    ("gpt2", "blocks[*].sublayers[0].scale=0.5", "scale is 0.5, and would be read as None"),
    ("gpt2", "blocks[*].sublayers[0].dropout=0.2", ""),
    ("gpt2", "head.bias=true", "head.bias is True, and would be read as False"),
    (
        "llama",
        "blocks[*].sublayers[0].position.pairing=adjacent",
        "pairing is 'adjacent', and would be read as 'halves'",
    ),
    ("bert", "embedding.norm=None", r"embedding.norm is None, and would be read as LayerNorm\(eps=1e-12\)"),
    ("bert", "head.activation=relu", "head.activation is 'relu', and would be read as 'gelu'"),
    ("bloom", "blocks[*].sublayers[1].hidden=7", "hidden is 7, and would be read as 128"),
]


@pytest.mark.parametrize(("name", "change", "told"), REFUSED)
def test_what_no_config_can_say_is_refused_by_its_path(name: str, change: str, told: str) -> None:
    spec = assign(make(name, **MEMBERS[name]), change)
    if not told:
        assert hub.spec_from_config(hub.config_from_spec(spec)).blocks == spec.blocks
        return
    with pytest.raises(ConfigError, match=f"{name} comes nearest, and cannot say it: 1 problem\n  1. .*{told}"):
        hub.config_from_spec(spec)


def test_members_that_were_never_published(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layout is 'interleaved', and would be read as 'halves'"):
        hub.export(make("transformer", **SMALL).build(), tmp_path / "out")
    with pytest.raises(ConfigError, match="no family of published checkpoints has this model"):
        hub.config_from_spec(make("gpt", **MEMBERS["gpt2"]))
    spec = make("gpt2", **MEMBERS["gpt2"])
    attention = spec.blocks[0].sublayers[0].replace(position=T5Buckets())
    block = spec.blocks[0].replace(sublayers=(attention, spec.blocks[0].sublayers[1]))
    with pytest.raises(ConfigError, match=r"position is T5Buckets\(\), and would be read as NoPosition\(\)"):
        hub.config_from_spec(spec.replace(blocks=(block, block)))
    assert not (tmp_path / "out").exists()


def test_names_and_beginnings_are_free() -> None:
    spec = make("gpt2", **MEMBERS["gpt2"])
    assert hub.config_from_spec(spec.replace(name="mine", init=spec.init.replace(std=0.5))) == hub.config_from_spec(
        spec
    )


def test_a_checkpoint_is_exported_like_its_run(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    hub.import_folder(folder, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    hub.export(checkpoint, tmp_path / "out")
    same_tensors(folder, tmp_path / "out")


def test_an_import_keeps_what_the_spec_does_not_say(tmp_path: Path) -> None:
    theirs, folder = bloom(tmp_path / "theirs", id2label={0: "no", 1: "yes"}, pad_token_id=3, initializer_range=0.5)
    theirs.to(torch.bfloat16).save_pretrained(folder)
    hub.import_folder(folder, tmp_path / "run")
    hub.export(tmp_path / "run", tmp_path / "out")
    config = tf.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.id2label, config.pad_token_id, config.initializer_range) == ({0: "no", 1: "yes"}, 3, 0.5)
    assert config.dtype == torch.float32


def test_a_new_export_names_no_token_that_it_does_not_know(tmp_path: Path) -> None:
    hub.export(make("llama", **MEMBERS["llama"]).build(), tmp_path / "out")
    config = tf.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)
