"""`formers generate`, `import` and `export`."""

import io
import json
from pathlib import Path

import pytest
from command import Cli

from formers.decode import GREEDY, generate
from formers.native.engine.library import missing
from formers.train import load_model, load_run_tokenizer


def greedy(run: Path, prompt: str, max_new: int) -> str:
    tokenizer = load_run_tokenizer(run)
    (row,) = generate(
        load_model(run), [tokenizer.encode(prompt)], max_new=max_new, sampling=GREEDY, tokenizer=tokenizer
    )
    return row.text or ""


def test_a_prompt_is_written_on_from(cli: Cli, trained: Path) -> None:
    said = cli("generate", trained, "--prompt", "7 green", "--max-new", 8, "--temperature", 0)
    assert said == (0, greedy(trained, "7 green", 8) + "\n", "")


def test_a_prompt_comes_from_a_file_or_from_standard_input(
    cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = greedy(trained, "7 green", 8) + "\n"
    (tmp_path / "prompt").write_text("7 green\n")
    words = ["--max-new", 8, "--temperature", 0]
    assert cli("generate", trained, "--prompt-file", tmp_path / "prompt", *words).out == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("7 green\n"))
    assert cli("generate", trained, *words).out == expected


def test_equal_seeds_write_equal_text(cli: Cli, trained: Path) -> None:
    words = ["generate", trained, "--prompt", "7", "--max-new", 20]
    chosen = ["--top-k", 20, "--top-p", 0.9, "--min-p", 0.01, "--repetition-penalty", 1.1]
    first = cli(*words, *chosen, "--seed", 3).out
    assert cli(*words, *chosen, "--seed", 3).out == first
    assert cli(*words, *chosen, "--seed", 4).out != first


def test_stop_strings_end_the_text(cli: Cli, trained: Path) -> None:
    whole = greedy(trained, "7 green", 12)
    words = ["generate", trained, "--prompt", "7 green", "--max-new", 12, "--temperature", 0]
    assert cli(*words, "--stop", whole[3]).out == whole[: whole.index(whole[3])] + "\n"


def test_several_prompts_are_written_side_by_side(cli: Cli, trained: Path) -> None:
    out = cli("generate", trained, "--prompt", "7", "--prompt", "88 gre", "--max-new", 5, "--temperature", 0).out
    assert out == f"--- 7\n{greedy(trained, '7', 5)}\n--- 88 gre\n{greedy(trained, '88 gre', 5)}\n"


def test_lines_are_translated_one_by_one(cli: Cli, translating: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("ak0\nbl1\ncm2\n")
    words = ["generate", translating, "--prompt-file", tmp_path / "lines", "--max-new", 4]
    for how in ([], ["--beam", 2]):
        code, out, _ = cli(*words, *how)
        assert code == 0
        assert len(out.splitlines()) == 3
    assert cli("generate", translating, "--prompt", "ak0", "--max-new", 4).out.count("\n") >= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--prompt", "x" * 40], "the model reads at most 32"),
        (["--prompt", "x", "--max-new", "0"], "max_new=0 leaves nothing to write"),
        (["--prompt", "x", "--temperature", "-1"], "temperature=-1.0 cannot be used to sample"),
        (["--prompt", "x", "--top-p", "2"], "top_p=2.0"),
        (["--prompt", "x", "--beam", "2", "--top-k", "3"], "leave out --beam or --top-k"),
        (["--prompt", "x", "--stop", ""], "an empty stop string"),
        (["--prompt-file", "missing.txt"], "cannot read missing.txt"),
    ],
)
def test_what_cannot_be_written_is_told(words: list[str], told: str, cli: Cli, trained: Path) -> None:
    code, out, err = cli("generate", trained, *words)
    assert (code, out) == (1, "")
    assert told in err


def test_a_prompt_is_given_in_one_way(cli: Cli, trained: Path) -> None:
    assert cli("generate", trained, "--prompt", "x", "--prompt-file", "y").code == 2


def test_a_folder_without_a_model_is_told(cli: Cli, tmp_path: Path) -> None:
    assert "holds no checkpoint" in cli("generate", tmp_path, "--prompt", "x").err
    assert "is no folder" in cli("generate", tmp_path / "missing", "--prompt", "x").err


def test_there_and_back_again(cli: Cli, trained: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    said = cli("export", trained, "--out", there)
    assert said.code == 0
    assert "config.json, model.safetensors, tokenizer.json" in said.out
    said = cli("import", there, "--out", back)
    assert said.code == 0
    assert said.out.startswith(f"{back}: a gpt2 model: ")
    expected = greedy(trained, "7 green", 8)
    for model in (there, back):
        assert cli("generate", model, "--prompt", "7 green", "--max-new", 8, "--temperature", 0).out == expected + "\n"
    assert "is not empty" in cli("export", trained, "--out", there).err


def test_what_cannot_be_imported_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    code, _, err = cli("import", tmp_path, "--out", tmp_path / "run")
    assert code == 1
    assert "unheard_of" in err
    assert cli("import", tmp_path / "missing", "--out", tmp_path / "run").code == 1
    assert not (tmp_path / "run").exists()


def test_engines_write_the_same_text(cli: Cli, trained: Path) -> None:
    words = ["generate", trained, "--prompt", "7 green", "--max-new", 12, "--temperature", 0, "--engine"]
    by_torch = cli(*words, "torch")
    assert by_torch == cli(*words, "auto") and by_torch.code == 0
    if missing() is None:
        assert cli(*words, "native") == by_torch
        for dtype in ("fp32", "bf16", "int8", "int4"):
            assert cli(*words, "native", "--dtype", dtype).code == 0


def test_an_engine_translates_too(cli: Cli, translating: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("ak0\nbl1bl1\ncm2\n")
    words = ["generate", translating, "--prompt-file", tmp_path / "lines", "--max-new", 4, "--engine"]
    assert cli(*words, "torch") == cli(*words, "auto")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "torch", "--dtype", "int8"], "weights in int8 are the native engine's"),
        (["--engine", "native", "--beam", 2], "a beam is searched with PyTorch"),
        (["--dtype", "bf16", "--beam", 2], "a beam is searched with PyTorch"),
    ],
)
def test_engines_that_cannot_be_are_refused(cli: Cli, trained: Path, words: list[object], said: str) -> None:
    code, _, err = cli("generate", trained, "--prompt", "7", *words)
    assert code != 0 and said in err


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_part_that_the_engine_does_not_know_is_named(cli: Cli, tmp_path: Path, text: Path) -> None:
    model = ["routing_transformer", "dim=16", "depth=1", "heads=2", "length=32"]
    quick = ["--data", text, "--out", tmp_path / "run", "--steps", 1, "--batch", 2, "--length", 16]
    assert cli("train", *model, *quick).code == 0
    words = ["generate", tmp_path / "run", "--prompt", "7", "--max-new", 2, "--temperature", 0]
    code, _, err = cli(*words, "--engine", "native")
    assert code != 0 and "no rule for StrictRule" in err and "'native' cannot be had" in err
    written = cli(*words)
    assert written.code == 0 and "decoding with PyTorch: the native engine has no rule for StrictRule" in written.err
