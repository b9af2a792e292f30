"""Folders and files: types, shards, and everything about them that is refused by name."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published import CLOSE, bert, bloom, configure, gpt2, llama, marian, rewrite, roformer, some_tokens
from safetensors.torch import load_file, save_file

from formers import CheckpointError, DataError, hub


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    theirs, _ = bloom(tmp_path / "whole")
    theirs.to(dtype).save_pretrained(tmp_path / "half")
    ours = hub.load(tmp_path / "half")
    with torch.no_grad():
        out, expected = ours(some_tokens()).logits, theirs.float()(some_tokens()).logits
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, **CLOSE)
    told = str(hub.import_folder(tmp_path / "half", tmp_path / "run"))
    assert f"in {str(dtype).removeprefix('torch.')}, kept as float32" in told


def test_half_precision_keeps_its_constant_tables(tmp_path: Path) -> None:
    theirs, _ = roformer(tmp_path / "whole")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    hub.load(tmp_path / "half")


def test_shards(tmp_path: Path) -> None:
    theirs, _ = llama(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    with torch.no_grad():
        out = hub.load(tmp_path / "shards")(some_tokens()).logits
        torch.testing.assert_close(out, theirs(some_tokens()).logits, **CLOSE)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    before = torch.get_rng_state()
    hub.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    llama(tmp_path / "whole")[0].save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    return tmp_path / "shards"


def test_a_shard_that_is_missing(shards: Path) -> None:
    lost = sorted(shards.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=rf"lacks {lost.name}, which model.safetensors.index.json names"):
        hub.load(shards)


def test_an_index_that_leads_elsewhere(shards: Path) -> None:
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"names '../secret.safetensors', which is not in this folder"):
        hub.load(shards)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}'])
def test_an_index_without_a_map(shards: Path, content: str) -> None:
    (shards / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="it has no weight_map"):
        hub.load(shards)


def test_one_tensor_in_two_shards(shards: Path) -> None:
    first, second, *_ = sorted(shards.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match="in two files; keep the one that is right"):
        hub.load(shards)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is a pickle, .* never loaded .* save_pretrained"):
        hub.load(folder)


def test_other_formats(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(CheckpointError, match=r"tf_model.h5 is of another format"):
        hub.load(folder)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        hub.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        hub.load(tmp_path)
    _, folder = gpt2(tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model.safetensors; download the weights"):
        hub.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="it is not JSON"):
        hub.load(folder)


def test_damaged_weights(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged .*; download it again"):
        hub.load(folder)


def change_tensors(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["transformer.h.1.ln_1.weight"], tensors["transformer.h.2.ln_1.weight"]
    tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T
    tensors["transformer.h.0.attn.rotation"] = torch.ones(3)
    tensors["transformer.ln_f.bias"] = torch.zeros(32, dtype=torch.int64)
    tensors["wpe.weight"] = tensors["transformer.wpe.weight"].clone()


def test_whatever_does_not_fit_is_told_at_once_by_name(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    rewrite(folder, change_tensors)
    with pytest.raises(CheckpointError) as caught:
        hub.load(folder)
    for told in (
        "does not fit its config.json: 5 problems",
        "transformer.h.1.ln_1.weight is missing (and 1 more like it)",
        "transformer.h.0.mlp.c_fc.weight has the shape (40, 32) and should have (32, 40)",
        "transformer.h.0.attn.rotation is there and has no place in the model",
        "transformer.ln_f.bias is I64, and weights can only be float32, bfloat16, float16",
        "wpe.weight and transformer.wpe.weight are two names of one tensor",
    ):
        assert told in str(caught.value)


def test_a_config_of_another_depth(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    configure(folder, n_layer=2)
    with pytest.raises(CheckpointError, match=r"transformer.h.2.attn.c_attn.bias is there and has no place"):
        hub.load(folder)


SHALLOW: list[tuple[Any, dict[str, int]]] = [
    (gpt2, {"n_layer": 1}),
    (llama, {"num_hidden_layers": 1}),
    (bloom, {"n_layer": 1}),
    (bert, {"num_hidden_layers": 1}),
    (roformer, {"num_hidden_layers": 1}),
    (marian, {"encoder_layers": 1, "decoder_layers": 1}),
]


@pytest.mark.parametrize(("family", "depth"), SHALLOW)
def test_every_tensor_is_needed_or_known_to_be_made(tmp_path: Path, family: Any, depth: dict[str, int]) -> None:
    _, folder = family(tmp_path / "theirs", **depth)
    whole = load_file(folder / "model.safetensors")
    for name in whole:
        save_file({other: tensor for other, tensor in whole.items() if other != name}, folder / "model.safetensors")
        if name.endswith("embed_positions.weight"):
            hub.load(folder)
            continue
        with pytest.raises(CheckpointError, match=f"1 problem\n  1. {name} is missing$"):
            hub.load(folder)


def test_a_config_beyond_any_memory(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    configure(folder, vocab_size=10**12)
    with pytest.raises(
        CheckpointError, match=r"wte.weight has the shape \(53, 32\) and should have \(1000000000000, 32\)"
    ):
        hub.load(folder)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = gpt2(tmp_path / "theirs")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("formers.hub.write.write_tensors", full)
    monkeypatch.setattr("formers.train.checkpoint.write_weights", full)
    for write in (lambda place: hub.import_folder(folder, place), lambda place: hub.export(hub.load(folder), place)):
        with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
            write(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


TWICE: list[tuple[Any, str, str]] = [
    (gpt2, "lm_head.weight", "transformer.wte.weight"),
    (bloom, "lm_head.weight", "transformer.word_embeddings.weight"),
    (bert, "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    (bert, "cls.predictions.decoder.bias", "cls.predictions.bias"),
    (marian, "model.decoder.embed_tokens.weight", "model.shared.weight"),
]


@pytest.mark.parametrize(("family", "copy", "first"), TWICE)
def test_second_copies_must_not_differ(tmp_path: Path, family: Any, copy: str, first: str) -> None:
    _, folder = family(tmp_path / "theirs")
    rewrite(folder, lambda tensors: tensors.update({copy: tensors[first].clone()}))
    hub.load(folder)
    rewrite(folder, lambda tensors: tensors.update({copy: tensors[first] + 1}))
    with pytest.raises(CheckpointError, match=f"{copy} differs from {first}"):
        hub.load(folder)


def test_an_untied_head_must_be_there(tmp_path: Path) -> None:
    _, folder = llama(tmp_path / "theirs")
    rewrite(folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"lm_head.weight is missing"):
        hub.load(folder)


@pytest.mark.parametrize("table", [torch.randn(24, 8), torch.zeros(24), torch.zeros(24, 8, dtype=torch.int64)])
def test_positions_that_were_trained(tmp_path: Path, table: torch.Tensor) -> None:
    _, folder = roformer(tmp_path / "theirs")
    name = "roformer.encoder.embed_positions.weight"
    rewrite(folder, lambda tensors: tensors.update({name: table}))
    with pytest.raises(CheckpointError, match=f"{name} holds other positions than the sinusoids"):
        hub.load(folder)


def test_a_classifier_is_refused_by_its_tensors(tmp_path: Path) -> None:
    _, folder = bert(tmp_path / "theirs", "BertForSequenceClassification")
    with pytest.raises(CheckpointError, match=r"classifier.bias is there and has no place in the model"):
        hub.load(folder)


def test_an_import_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    rewrite(folder, change_tensors)
    with pytest.raises(CheckpointError):
        hub.import_folder(folder, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    for write in (lambda: hub.import_folder(folder, folder), lambda: hub.export(hub.load(folder), folder)):
        with pytest.raises(CheckpointError, match="is not empty; name a new folder"):
            write()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be written"):
        hub.export(hub.load(folder), tmp_path / "file" / "out")


def test_a_run_is_not_a_published_folder(tmp_path: Path) -> None:
    _, folder = gpt2(tmp_path / "theirs")
    hub.import_folder(folder, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="it is a run of formers already"):
        hub.load(tmp_path / "run")
