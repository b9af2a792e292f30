"""A saved state is whole, and says what is wrong when it is not. That every member goes on from one is a law."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from formers import load_state, make, save_state
from formers.errors import CheckpointError, DataError
from formers.output import ModelState
from formers.places import Places
from formers.state import Log


def test_all_that_a_state_may_be_made_of(tmp_path) -> None:
    ragged = Places(
        torch.tensor([[0, 1], [0, 0]]), torch.tensor([[True, True], [True, False]]), {"m": torch.ones(2, 2)}
    )
    run, log = Places.run(3, 2), Log(torch.randn(2, 1, 5, 4).half()).last(3)
    state = ModelState(
        torch.tensor([4, 2]), ((log, ragged), {"sums": torch.randn(2, 3, dtype=torch.bfloat16)}, run, ragged)
    )
    save_state(tmp_path / "state", state)
    again: Any = load_state(tmp_path / "state")
    assert isinstance(again, ModelState)
    (log_again, ragged_again), sums, run_again, shared = again.blocks
    torch.testing.assert_close(log_again.view, log.view, rtol=0, atol=0)
    torch.testing.assert_close(sums["sums"], state.blocks[1]["sums"], rtol=0, atol=0)
    assert torch.equal(again.seen, state.seen)
    assert torch.equal(ragged_again.pos, ragged.pos) and torch.equal(ragged_again.real, ragged.real)
    assert torch.equal(ragged_again.marks["m"], ragged.marks["m"])
    assert (run_again.start, run_again.length, run_again.device) == (3, 2, None)
    assert shared is ragged_again


def state_of(model: torch.nn.Module) -> Any:
    return model(torch.tensor([[1, 2, 3]])).state


@pytest.fixture
def model() -> torch.nn.Module:
    return make("gpt2", vocab=10, dim=8, depth=2, heads=2, length=16).build().eval()


def test_layers_go_on_sharing_their_places(model, tmp_path) -> None:
    save_state(tmp_path / "state", state_of(model))
    blocks = load_state(tmp_path / "state").blocks
    assert blocks[0][0].places is blocks[1][0].places


def test_a_state_that_cannot_be_saved_leaves_the_older_file(model, tmp_path) -> None:
    path = tmp_path / "state"
    save_state(path, state_of(model))
    before = path.read_bytes()
    with pytest.raises(TypeError, match="holds a set, which cannot be saved"):
        save_state(path, ({1, 2},))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["state"]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot write"):
        save_state(tmp_path / "file" / "state", state_of(model))


def test_a_damaged_file_is_one_clear_error(model, tmp_path) -> None:
    path = tmp_path / "state"
    save_state(path, state_of(model))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_state(path)
    path.write_bytes(whole.replace(b"ModelState", b"ModelStale"))
    with pytest.raises(CheckpointError, match="ModelStale, which is not imported here"):
        load_state(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no state of a model"):
        load_state(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_state(tmp_path / "none")
