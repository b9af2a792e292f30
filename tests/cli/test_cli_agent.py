"""`formers control train gtrxl` and `formers control act`: an agent learns, acts, stops, goes on, and what cannot be is told."""

from pathlib import Path

import pytest
from command import Cli

pytest.importorskip("gymnasium")

SMALL = ["dim=8", "depth=1", "heads=2", "hidden=8", "segment=4", "memory=4"]
QUICK = ["--env", "CartPole-v1", "--hide", 1, 3, "--steps", 40, "--batch", 2, "--length", 5, "--checkpoint-every", 2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from formers.cli import main

    out = tmp_path_factory.mktemp("agents") / "agent"
    words = ["control", "train", "gtrxl", *SMALL, *QUICK, "--out", out]
    assert main([str(word) for word in words]) == 0
    return out


def test_it_trains_and_then_acts(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"spec.json", "train.json", "control.json", "metrics.jsonl", "returns.png", "checkpoints"} <= names
    assert (trained / "checkpoints" / "step-000004").is_dir()


def test_it_acts_alone_with_the_same_numbers_hidden(cli: Cli, trained: Path) -> None:
    said = cli("control", "act", trained, "--episodes", 3)
    assert said.code == 0, said.err
    assert "mean return" in said.out
    assert said.out.split("\n")[1].split()[0] == "3"
    assert cli("control", "act", trained, "--episodes", 3).out == said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "Acrobot-v1", "--hide", 0], "and in Acrobot-v1 that is Numbers(width=5"),
        (["--hide", 0], "sees Numbers(width=2"),
        (["--env", "MountainCar-v0", "--hide"], "expected at least one argument"),
        (["--episodes", 0], "0 episodes are none"),
        (["--env", "Nowhere-v0"], "Nowhere"),
    ],
)
def test_where_it_cannot_act_is_told(cli: Cli, trained: Path, words: list[object], message: str) -> None:
    said = cli("control", "act", trained, *words)
    assert said.code in (1, 2)
    assert message in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "CartPole-v1", "--steps", 40], "--out runs/agent"),
        (["--steps", 40, "--out", "OUT"], "give --env"),
        (["--env", "CartPole-v1", "--out", "OUT"], "how long to train is not said"),
        (["--env", "CartPole-v1", "--hide", 7, "--steps", 40, "--out", "OUT"], "4 numbers are seen"),
        (["dim=9", "--env", "CartPole-v1", "--steps", 40, "--out", "OUT"], "does not split into 4 heads"),
        (["depht=1", "--env", "CartPole-v1", "--steps", 40, "--out", "OUT"], "gtrxl has no argument 'depht'"),
        (
            ["--env", "CartPole-v1", "--steps", 40, "--precision", "bf16", "--out", "OUT"],
            "--precision is not for gtrxl",
        ),
        (["--env", "CartPole-v1", "--steps", 0, "--out", "OUT"], "steps=0 must be at least 1"),
        (["--env", "Blackjack-v1", "--steps", 40, "--out", "OUT"], "it must be a Box or Discrete"),
        (["--resume", "--out", "OUT"], "holds no run to resume"),
    ],
)
def test_training_that_cannot_be_is_told(cli: Cli, tmp_path: Path, words: list[object], message: str) -> None:
    out = tmp_path / "agent"
    said = cli("control", "train", "gtrxl", *(out if word == "OUT" else word for word in words))
    assert said.code == 1
    assert message in said.err
    assert not (out / "control.json").exists()


def test_a_run_is_not_begun_twice_and_goes_on_as_it_was(cli: Cli, trained: Path) -> None:
    said = cli("control", "train", "gtrxl", *SMALL, *QUICK, "--out", trained)
    assert said.code == 1 and "a run already" in said.err
    said = cli("control", "train", "gtrxl", "--resume", "--steps", 80, "--out", trained)
    assert said.code == 1 and "give --resume and --out alone" in said.err
    said = cli("control", "train", "gtrxl", "--resume", "--out", trained)
    assert said.code == 0, said.err
    assert "mean return" in said.out
