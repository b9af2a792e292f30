import pytest
import torch
from tiny_run import tiny_model, tiny_spec

from formers.data.tokenizer import ByteTokenizer
from formers.errors import CheckpointError, DataError
from formers.train import Run, load_model, load_run_tokenizer
from formers.train.checkpoint import save_checkpoint


@pytest.fixture
def started(run):
    folder = Run(run)
    folder.start(tiny_model().spec, tiny_spec(), ByteTokenizer())
    return folder


def fill(folder, *steps):
    for step in steps:
        model = tiny_model(seed=step)
        save_checkpoint(folder.checkpoint(step), model, model.spec)


def test_a_run_is_started_when_all_of_it_is_written(started):
    assert started.started
    assert sorted(path.name for path in started.root.iterdir()) == [
        "checkpoints",
        "spec.json",
        "tokenizer_config.json",
        "train.json",
    ]
    assert started.spec == tiny_model().spec


def test_the_oldest_checkpoints_go(started):
    fill(started, 900, 1000, 999_999, 1_000_000)
    started.prune(2)
    assert [path.name for path in started.checkpoints()] == ["step-999999", "step-1000000"]


def test_a_sweep_leaves_nothing_unfinished(started):
    fill(started, 5)
    (started.root / "checkpoints" / "step-000006.tmp").mkdir()
    (started.root / ".spec.json.123.part").write_text("{")
    started.sweep()
    assert [path.name for path in (started.root / "checkpoints").iterdir()] == ["step-000005"]
    assert not list(started.root.glob(".*"))


def test_the_last_model_is_loaded_ready_for_use(started):
    fill(started, 5, 10)
    model = load_model(started.root)
    assert not model.training
    torch.testing.assert_close(model.state_dict(), tiny_model(seed=10).state_dict(), rtol=0, atol=0)
    earlier = load_model(started.checkpoint(5))
    torch.testing.assert_close(earlier.state_dict(), tiny_model(seed=5).state_dict(), rtol=0, atol=0)


def test_the_tokenizer_is_found_from_the_run_and_from_a_checkpoint(started):
    fill(started, 5)
    for path in (started.root, started.checkpoint(5)):
        assert load_run_tokenizer(path).fingerprint == ByteTokenizer().fingerprint


def test_a_missing_tokenizer_is_told(run):
    Run(run).start(tiny_model().spec, tiny_spec(), None)
    with pytest.raises(DataError, match="holds no tokenizer"):
        load_run_tokenizer(run)


def test_an_imported_model_can_be_held_and_loaded(run):
    model = tiny_model(seed=3)
    Run(run).hold(model, model.spec, ByteTokenizer())
    torch.testing.assert_close(load_model(run).state_dict(), model.state_dict(), rtol=0, atol=0)
    assert not Run(run).started


def test_a_checkpoint_of_another_model_than_the_run_is_refused(started):
    stranger = tiny_model(dropout=0.4)
    save_checkpoint(started.checkpoint(5), stranger, stranger.spec)
    with pytest.raises(CheckpointError, match=r"embedding\.dropout: 0\.4 was saved, 0\.1 is given"):
        load_model(started.root)


def test_there_is_no_model_where_there_is_no_checkpoint(started, tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_model(started.root)
    with pytest.raises(CheckpointError, match="is no folder"):
        load_model(tmp_path / "none")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot hold a run"):
        Run(tmp_path / "file" / "run").start(tiny_model().spec, tiny_spec(), None)


def test_a_damaged_spec_is_refused(started):
    (started.root / "spec.json").write_text('{"kind": "Decoder"')
    with pytest.raises(ValueError, match=r"spec\.json is not JSON"):
        _ = started.spec
