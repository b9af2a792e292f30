"""`formers plan`."""

import json
from pathlib import Path

import pytest
from command import TINY, Cli

from formers.recomputed import Recomputed
from formers.spec import from_json

FEW = ["--batch", "8", "--length", "32"]


def test_a_plan_tells_parameters_memory_and_a_command(cli: Cli) -> None:
    code, out, err = cli("plan", *TINY, "--devices", 2, *FEW)
    assert (code, err) == (0, "")
    for told in ("parameters", "data parallel", "full shard", "fastest that fits", "as full as planned"):
        assert told in out
    assert "torchrun --nproc-per-node 2 -m formers train gpt2 dim=16" in out


def test_json_holds_the_same_figures(cli: Cli) -> None:
    code, out, _ = cli("plan", *TINY, "--devices", 2, *FEW, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["best"] == "data parallel"
    assert {candidate["shard"] for candidate in told["candidates"]} == {"data", "full"}
    for candidate in told["candidates"]:
        assert sum(candidate["bytes"].values()) == candidate["peak"]


def test_a_recomputed_model_is_written_for_training(cli: Cli, tmp_path: Path) -> None:
    _, out, _ = cli("plan", *TINY, *FEW, "--json")
    least = min(candidate["peak"] for candidate in json.loads(out)["candidates"])
    file = tmp_path / "model.json"
    code, out, _ = cli("plan", *TINY, *FEW, "--memory", f"{least / 0.9e6 + 0.001:.3f}MB", "--out", file)
    assert code == 0
    assert f"formers train {file}" in out
    assert isinstance(from_json(file.read_text()).blocks[0], Recomputed)


def test_decoding_tells_states_and_rates(cli: Cli) -> None:
    code, out, err = cli("plan", *TINY, "--decode", "--batch", 4, "--device", "cpu", "--memory", "1GB")
    assert (code, err) == (0, "")
    assert "state of a stream" in out and "tokens/s" in out
    code, out, _ = cli("plan", *TINY, "--decode", "--json")
    assert (code, json.loads(out)["fits"]) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--devices", "0"], "nothing runs on 0 devices"),
        (["--memory", "80"], "has no unit"),
        (["--memory", "plenty"], "no amount of memory"),
        (["--length", "33"], "32 positions"),
        (["--length", "0"], "length=0"),
        (["--batch", "7", "--devices", "2"], "give --batch 8"),
        (["--batch", "0"], "batch=0"),
        (["--utilisation", "2"], "share of the peak"),
        (["--speed", "-1"], "speeds above 0"),
        (["--device", "cpu"], "give it, such as --memory 16GB"),
        (["--optimizer", "Block(())"], "optimizer"),
        (["--decode", "--optimizer", "AdamW()"], "leave it out"),
        (["--decode", "--batch", "0"], "give --batch 1"),
    ],
)
def test_bad_input_is_one_clear_error(words: list[str], told: str, cli: Cli) -> None:
    code, out, err = cli("plan", *TINY, *words)
    assert (code, out) == (1, "")
    assert told in err and err.count("\n") <= 3 and "Traceback" not in err


def test_what_cannot_fit_says_what_would(cli: Cli) -> None:
    code, out, _ = cli("plan", *TINY, *FEW, "--memory", "0.01MB")
    assert code == 0
    assert "nothing fits" in out and "plan more --devices" in out
