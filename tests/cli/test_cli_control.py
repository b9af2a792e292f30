"""`formers control`: recording, training a Decision Transformer and acting by it; and what is wrong, each in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
from command import Cli

from formers import make
from formers.cli import main
from formers.control.trajectories import open_trajectories
from formers.spec import from_json

pytest.importorskip("gymnasium")
TINY = ["dim=16", "depth=1", "context=4"]
SHORT = ["--steps", 4, "--batch", 4]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "cartpole"
    words = ["control", "record", "--env", "CartPole-v1", "--policy", "random", "--episodes", "8", "--out", str(folder)]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("acting") / "dt"
    words = ["control", "train", "decision_transformer", *TINY, "--data", data, "--out", folder, *SHORT]
    assert main([str(word) for word in words]) == 0
    return folder


def test_what_was_recorded_is_told_policy_by_policy(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("control", "record", "--env", "MountainCar-v0", "--episodes", 5, "--out", tmp_path, "--seed", 3)
    assert code == 0
    lines = out.splitlines()
    assert lines[1].startswith("scripted ") and lines[2].startswith("scripted, 20% at random") and "random" in lines[5]
    told = open_trajectories(tmp_path)
    assert len(told) == 5 and f"{len(told.rewards):,} steps" in lines[-1]
    assert (
        cli("control", "record", "--env", "MountainCar-v0", "--episodes", 5, "--out", tmp_path, "--seed", 3).out == out
    )


def test_a_run_holds_its_data_its_model_and_what_it_reached(run: Path, data: Path) -> None:
    assert open_trajectories(run / "data").fingerprint == open_trajectories(data).fingerprint
    spec = from_json((run / "spec.json").read_text())
    assert (spec.dim, spec.context, spec.embedding.horizon) == (16, 4, 500)
    told = open_trajectories(data)
    assert spec.embedding.return_scale == float(told.returns.max())
    reached = json.loads((run / "reached.json").read_text())["reached"]
    assert len(reached) == 6 and reached[-1]["asked"] == float(told.returns.max())
    assert all((run / name).read_bytes().startswith(b"\x89PNG") for name in ("reached.png", "loss.png"))


def test_it_acts_for_what_it_is_asked(cli: Cli, run: Path, tmp_path: Path) -> None:
    words = ["control", "act", run, "--return", 30, 10, "--episodes", 2, "--plot", tmp_path / "here.png"]
    code, out, _ = cli(*words)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["10.0", "30.0"]
    assert (tmp_path / "here.png").is_file() and cli(*words).out == out
    highest = json.loads((run / "control.json").read_text())["more"]["highest"]
    assert f"{highest:,.1f} " in cli("control", "act", run, "--episodes", 1).out


def test_it_records_by_itself_and_numbers_are_actions_too(cli: Cli, tmp_path: Path) -> None:
    words = ["control", "train", "decision_transformer", *TINY, "--env", "Pendulum-v1", "--episodes", 5, *SHORT]
    code, out, err = cli(*words, "--out", tmp_path / "run")
    assert code == 0 and "1,000 steps of 5 episodes" in out and "squared error" in err
    assert from_json((tmp_path / "run" / "spec.json").read_text()).embedding.action.high == (2.0,)


def test_a_run_goes_on_as_if_it_had_never_stopped(cli: Cli, data: Path, tmp_path: Path) -> None:
    words = ["control", "train", "decision_transformer", *TINY, "--data", data, *SHORT, "--checkpoint-every", 2]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "step-000004")
    (tmp_path / "part" / "reached.json").unlink()
    code, _, err = cli("control", "train", "decision_transformer", "--resume", "--out", tmp_path / "part")
    assert code == 0, err
    assert (tmp_path / "part" / "reached.json").read_text() == (tmp_path / "whole" / "reached.json").read_text()


def test_what_is_wrong_is_told_in_one_sentence(cli: Cli, data: Path, run: Path, tmp_path: Path) -> None:
    dt, new = ["control", "train", "decision_transformer"], ["--out", tmp_path / "new"]
    empty = shutil.copytree(data, tmp_path / "empty")
    about = json.loads((empty / "trajectories.json").read_text())
    (empty / "trajectories.json").write_text(json.dumps(about | {"format": 9}))
    for words, told in [
        (["control", "record", "--env", "CartPole-v1"], "give --env CartPole-v1 --out"),
        (["control", "record", "--env", "CartPoel-v1", *new], "Did you mean: `CartPole`"),
        (["control", "record", "--env", "Blackjack-v1", *new], "must be a Box or Discrete"),
        (["control", "record", "--env", "CartPole-v1", "--episodes", 0, *new], "0 episodes"),
        (["control", "record", "--env", "Acrobot-v1", "--policy", "scripted", *new], "no script is known"),
        (
            ["control", "record", "--env", "CartPole-v1", "--policy", tmp_path, *new],
            "no run of `formers control train`",
        ),
        ([*dt, *new], "how long to train is not said"),
        ([*dt, *SHORT, *new], "there is nothing to learn from"),
        ([*dt, *SHORT], "where the run is to lie"),
        ([*dt, *SHORT, *new, "--data", tmp_path / "none"], "holds no trajectories"),
        ([*dt, *SHORT, *new, "--data", empty], "of format 9"),
        ([*dt, *SHORT, *new, "--data", data, "--env", "Pendulum-v1"], "were recorded in CartPole-v1"),
        ([*dt, *SHORT, *new, "--data", data, "action=Choices(3)"], "the model's actions are Choices(count=3)"),
        ([*dt, *SHORT, *new, "--data", data, "context=4", "horizon=5"], "give it horizon="),
        ([*dt, *SHORT, *new, "--data", data, "heads=5"], "does not split into 5 heads"),
        ([*dt, *SHORT, *new, "--data", data, "hedas=5"], "did you mean 'heads'"),
        ([*dt, *SHORT, *new, "--data", data, "--length", 9], "leave out --length"),
        ([*dt, *SHORT, "--data", data, "--out", run], "holds a run already"),
        ([*dt, "--resume", *new], "holds no run to resume"),
        (["control", "train", "decision_transfromer", *SHORT, *new], "did you mean 'decision_transformer'"),
        (["control", "act", run, "--data", data], "--data says nothing to formers control act"),
        (["control", "act", run, "--steps", 3], "--steps says nothing to formers control act"),
        (["control", "record", "--return", 3], "--return says nothing to formers control record"),
        (["control", "record", "gtrxl", "--env", "CartPole-v1", *new], "gtrxl says nothing"),
        ([*dt, *SHORT, *new, "--data", data, "--plot", "here.png"], "--plot says nothing"),
        (["control", "train"], "wants a member"),
        (["control", "act"], "wants the folder of a run"),
        (["control", "act", tmp_path], "no run of `formers control train`"),
        (["control", "act", run, "--env", "Pendulum-v1"], "those of Pendulum-v1 are"),
        (["control", "act", run, "--episodes", 0], "nothing is asked for"),
        (["control", "act", run, "--temperature", -1], "a temperature of -1.0"),
    ]:
        code, out, err = cli(*words)
        assert code == 1 and told in err and err.startswith("formers: ") and "Traceback" not in out + err, (words, err)
        assert not (tmp_path / "new").exists(), words


def test_it_is_listed_shown_and_checked(cli: Cli, tmp_path: Path) -> None:
    assert "arXiv:2106.01345" in next(line for line in cli("list").out.splitlines() if line.startswith("decision_tr"))
    code, out, _ = cli("show", "decision_transformer", *TINY, "--length", 12)
    built = sum(p.numel() for p in make("decision_transformer", dim=16, depth=1, context=4).build().parameters())
    assert code == 0 and f"{built:,}" in out and "StepEmbedding" in out and "Causal()" in out
    file = tmp_path / "mine.json"
    file.write_text(cli("show", "decision_transformer", *TINY, "--json").out)
    assert cli("check", file).out == f"{file}: fine, decision_transformer\n"
    assert cli("show", file, "--length", 12).out == out
    file.write_text(file.read_text().replace('"horizon": 1000', '"horizon": 2'))
    assert "the last 4 steps of episodes of at most 2" in cli("check", file).err
    told = cli("train", "decision_transformer", "--data", file, "--steps", 2, "--out", tmp_path / "run").err
    assert "learns from trajectories and acts" in told and not (tmp_path / "run").exists()
