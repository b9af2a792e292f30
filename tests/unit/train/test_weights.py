import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import tiny_model

from formers.errors import CheckpointError
from formers.train.weights import read_weights, unique_tensors, write_weights


@pytest.fixture
def saved(tmp_path):
    model = tiny_model()
    write_weights(tmp_path / "model.safetensors", model, model.spec)
    return tmp_path / "model.safetensors"


def rewrite(path, change):
    """The same file with its tensors changed by hand."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_what_was_written_is_read(saved):
    model = tiny_model(seed=1)
    read_weights(saved, model, model.spec)
    torch.testing.assert_close(model.state_dict(), tiny_model().state_dict(), rtol=0, atol=0)


def test_shared_tensors_are_stored_once(tmp_path):
    model = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2, bias=False), "two": torch.nn.Linear(2, 2, bias=False)})
    model["two"].weight = model["one"].weight
    assert list(unique_tensors(model)) == ["one.weight"]
    spec = tiny_model().spec
    write_weights(tmp_path / "shared.safetensors", model, spec)
    assert list(load_file(tmp_path / "shared.safetensors")) == ["one.weight"]
    before = model["one"].weight.detach().clone()
    torch.nn.init.zeros_(model["one"].weight)
    read_weights(tmp_path / "shared.safetensors", model, spec)
    torch.testing.assert_close(model["two"].weight.detach(), before, rtol=0, atol=0)


def test_another_spec_is_told_field_by_field_and_changes_nothing(saved):
    other = tiny_model(seed=1, length=48, dropout=0.3)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        read_weights(saved, other, other.spec)
    assert "embedding.position.length: 32 was saved, 48 is given" in str(caught.value)
    assert "embedding.dropout: 0.1 was saved, 0.3 is given" in str(caught.value)
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)


def test_missing_extra_and_misshapen_tensors_are_told_together(saved):
    def change(tensors):
        name = "embedding.tokens.weight"
        tensors["stranger"] = tensors[name][:3].clone()
        tensors[name] = tensors[name][:, :5].clone()
        del tensors["norm.weight"]

    rewrite(saved, change)
    model = tiny_model(seed=1)
    with pytest.raises(CheckpointError) as caught:
        read_weights(saved, model, model.spec)
    told = str(caught.value)
    assert "norm.weight is missing" in told
    assert "stranger has no place in the model" in told
    assert "embedding.tokens.weight has the shape (257, 5) and should have (257, 16)" in told
    torch.testing.assert_close(model.state_dict(), tiny_model(seed=1).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    model = tiny_model()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_weights(saved, model, model.spec)


def test_a_pickle_is_refused(saved):
    torch.save({"weight": torch.ones(2)}, saved)
    model = tiny_model()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_weights(saved, model, model.spec)


def test_a_missing_file_is_refused(tmp_path):
    model = tiny_model()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "none.safetensors", model, model.spec)
