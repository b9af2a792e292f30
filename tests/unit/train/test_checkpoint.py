import errno
import json
import os

import pytest
import torch
from tiny_run import tiny_model

from formers.errors import CheckpointError
from formers.train import Adafactor, AdamW
from formers.train import weights as weights_module
from formers.train.checkpoint import Position, load_checkpoint, save_checkpoint

DATA = {"train": "one", "held_out": "two"}
POSITION = Position(step=3, tokens=99, seconds=1.5)


def trained(optimizer_spec, seed=0):
    """A model after three updates, and its optimiser."""
    model = tiny_model(seed)
    optimizer = optimizer_spec.build(model)
    for step in range(3):
        model(torch.arange(8)[None] + step).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.fixture
def saved(tmp_path):
    model, optimizer = trained(AdamW())
    path = tmp_path / "checkpoints" / "step-000003"
    save_checkpoint(path, model, model.spec, optimizer, POSITION, DATA)
    return path


@pytest.mark.parametrize("spec", [AdamW(), Adafactor()])
def test_model_optimiser_and_position_come_back(tmp_path, spec):
    model, optimizer = trained(spec)
    save_checkpoint(tmp_path / "saved", model, model.spec, optimizer, POSITION, DATA)
    other = tiny_model(seed=7)
    memory = spec.build(other)
    assert load_checkpoint(tmp_path / "saved", other, other.spec, memory, DATA) == POSITION
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(memory.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0)
    assert memory.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_a_checkpoint_is_three_files(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert [path.name for path in saved.parent.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_damage_anywhere_is_found_and_changes_nothing(saved, name, damage):
    content = bytearray((saved / name).read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    (saved / name).write_bytes(content[:-9] if damage == "short" else content)
    if damage == "gone":
        (saved / name).unlink()
    model = tiny_model(seed=7)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(saved, model, model.spec, AdamW().build(model), DATA)
    torch.testing.assert_close(model.state_dict(), tiny_model(seed=7).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("content", ["", "[1]", "{", "{}", '{"sha256": 3}', '{"sha256": {}, "step": "x"}'])
def test_a_state_that_makes_no_sense_is_refused(saved, content):
    (saved / "state.json").write_text(content)
    model = tiny_model()
    with pytest.raises(CheckpointError, match=r"state\.json|whole checkpoint"):
        load_checkpoint(saved, model, model.spec, AdamW().build(model), DATA)


def test_other_data_is_refused_by_name(saved):
    model = tiny_model()
    with pytest.raises(CheckpointError, match=r"other data \(held_out changed"):
        load_checkpoint(saved, model, model.spec, AdamW().build(model), DATA | {"held_out": "three"})


def test_the_memory_of_another_optimiser_is_refused(saved):
    model = tiny_model()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors"):
        load_checkpoint(saved, model, model.spec, Adafactor().build(model), DATA)


def test_a_full_disk_leaves_the_checkpoints_before_it_and_nothing_else(saved, monkeypatch):
    def full(*arguments):
        raise weights_module.SafetensorError("I/O error: No space left on device (os error 28)")

    model, optimizer = trained(AdamW())
    monkeypatch.setattr(weights_module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*earlier checkpoints are whole"):
        save_checkpoint(saved.parent / "step-000004", model, model.spec, optimizer, POSITION, DATA)
    assert [path.name for path in saved.parent.iterdir()] == ["step-000003"]
    load_checkpoint(saved, model, model.spec, optimizer, DATA)


def test_a_disk_that_fails_to_sync_leaves_nothing(saved, monkeypatch):
    def failing(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    model, optimizer = trained(AdamW())
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_checkpoint(saved.parent / "step-000004", model, model.spec, optimizer, POSITION, DATA)
    assert [path.name for path in saved.parent.iterdir()] == ["step-000003"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    model, optimizer = trained(AdamW())
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        save_checkpoint(tmp_path / "file" / "step-000004", model, model.spec, optimizer, POSITION, DATA)


def test_the_state_tells_what_it_is_of(saved):
    state = json.loads((saved / "state.json").read_text())
    assert (state["step"], state["tokens"], state["seconds"], state["data"]) == (3, 99, 1.5, DATA)
