"""`formers list`, `show` and `check`."""

import json
from pathlib import Path

import pytest
from command import Cli

from formers import MEMBERS, make
from formers.spec import from_json

SMALL = ["gpt2", "depth=2", "dim=16", "heads=2", "vocab=40", "length=64"]


def test_list_tells_every_member(cli: Cli) -> None:
    code, out, _ = cli("list")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    for name, member in MEMBERS.items():
        assert member.paper in rows[name] and str(member.year) in rows[name] and member.cost in rows[name]
    assert rows["gpt2"].split()[-2:] == ["yes", "yes"]
    assert rows["bert"].split()[-2:] == ["no", "no"]


def test_show_tells_the_tree_the_costs_and_the_pattern(cli: Cli) -> None:
    code, out, _ = cli("show", *SMALL)
    assert code == 0
    assert "blocks[0..1] = Block x 2" in out
    built = sum(
        parameter.numel()
        for parameter in make("gpt2", depth=2, dim=16, heads=2, vocab=40, length=64).build().parameters()
    )
    assert f"{built:,}" in out
    assert "Causal()\nthe first 32 tokens; queries down, keys across\n██· · " in out


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_can_be_shown(name: str, cli: Cli) -> None:
    words = [f"{argument}={value}" for argument, value in MEMBERS[name].small.items()]
    code, out, _ = cli("show", name, *words, "--length", 24)
    assert code == 0
    assert "whole" in out


def test_a_preset_is_a_set_of_arguments(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("show", "scaling_transformer", "depth=1", "--preset", "17b", "--length", 8, "--json")
    assert code == 0 and from_json(out) == make("scaling_transformer", "17b", depth=1)
    (tmp_path / "mine.json").write_text(out)
    for name, told in [
        ("scaling_transformer", "no preset '18b': did you mean '"),
        ("gpt2", "gpt2 has no presets"),
        (str(tmp_path / "mine.json"), "only members have presets"),
    ]:
        code, _, told_now = cli("show", name, "--preset", "18b")
        assert code != 0 and told in told_now


def test_show_takes_paths(cli: Cli) -> None:
    code, out, _ = cli(
        "show", *SMALL, "--set", "blocks[*].sublayers[0].pattern=Causal() & Window(4)", "--set", "norm=none"
    )
    assert code == 0
    assert "pattern=Causal() & Window(size=4)" in out and "norm=None" in out


def test_show_as_json_is_a_spec_file(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("show", *SMALL, "--json")
    assert code == 0
    assert from_json(out) == make("gpt2", depth=2, dim=16, heads=2, vocab=40, length=64)
    (tmp_path / "mine.json").write_text(out)
    assert cli("check", tmp_path / "mine.json") == (0, f"{tmp_path / 'mine.json'}: fine, gpt2\n", "")
    assert cli("show", tmp_path / "mine.json", "--json").out == out


def test_show_a_run(cli: Cli, trained: Path) -> None:
    assert "Decoder(name='gpt2'" in cli("show", trained).out


def test_show_draws_a_picture(cli: Cli, tmp_path: Path) -> None:
    assert cli("show", *SMALL, "--plot", tmp_path / "pattern.png").code == 0
    assert (tmp_path / "pattern.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_has_the_name_of_one(cli: Cli, tmp_path: Path) -> None:
    told = cli("show", *SMALL, "--plot", tmp_path / "window=0")
    assert told.code == 2 and "window=0' is no picture; name a file that ends in .png" in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gpt3"], "did you mean 'gpt'?"),
        (["nothing/here.json"], "there is no file nothing/here.json"),
        (["."], "is a folder without a spec.json"),
        (["gpt2", "dept=3"], "gpt2 has no argument 'dept': did you mean 'depth'?"),
        (["gpt2", "depth=x"], "depth=x: 'x' is not int"),
        (["gpt2", "depth"], "'depth' is no argument: write name=value"),
        (["gpt2", "blocks[0].residual.dropout=0"], "a path into the spec is set by --set"),
        (["gpt2", "--set", "depth=3"], "depth is an argument of gpt2 and no field of its spec: write it without --set"),
        (["gpt2", "--set", "blocks[0].sublayer=3"], "did you mean 'sublayers'?"),
        (["gpt2", "--set", "dim=wide"], "'wide' is not int"),
        (["gpt2", "--set", "dim"], "'dim' sets nothing: write path=value"),
        (["gpt2", "heads=5"], "dim 768 does not split into 5 heads"),
        (["gpt2", "--length", "2000"], "1024 positions, too few for a length of 2000"),
        (["gpt2", "--length", "0"], "give a length of at least 1"),
    ],
)
def test_what_cannot_be_shown_is_told(words: list[str], told: str, cli: Cli) -> None:
    code, out, err = cli("show", *words)
    assert (code, out) == (1, "")
    assert told in err


def test_spec_files_take_no_arguments(cli: Cli, trained: Path) -> None:
    assert "only members take arguments" in cli("show", trained, "depth=3").err


def test_a_part_is_no_model(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text('{"kind": "LayerNorm"}')
    assert "holds a LayerNorm, which is a part and not a whole model" in cli("show", tmp_path / "part.json").err
    assert cli("check", tmp_path / "part.json").code == 0


def test_check_tells_every_problem_with_its_mend(cli: Cli, tmp_path: Path) -> None:
    spec = json.loads(make("gpt2", depth=2, dim=16, heads=2).to_json())
    spec["blocks"][0]["sublayers"][0]["heads"] = 5
    spec["blocks"][1]["sublayers"][1]["hidden"] = 0
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(spec))
    code, out, err = cli("check", file)
    assert (code, out) == (1, "")
    assert "gpt2 cannot be built: 2 problems" in err
    assert "gpt2.blocks[0].sublayers[0]: dim 16 does not split into 5 heads" in err and "fix: heads=4" in err
    assert "gpt2.blocks[1].sublayers[1]: a feed-forward of 0 units" in err


def test_check_goes_through_all_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "fine.json").write_text(make("gpt2").to_json())
    code, out, err = cli("check", tmp_path / "missing.json", tmp_path / "fine.json")
    assert code == 1
    assert "fine.json: fine, gpt2" in out and "missing.json" in err


def test_check_tells_a_member_how_to_become_a_file(cli: Cli) -> None:
    assert "gpt2 is a member, and a file is asked for: formers show gpt2 --json > gpt2.json" in cli("check", "gpt2").err


def test_check_knows_training_specs(cli: Cli, trained: Path, tmp_path: Path) -> None:
    assert cli("check", trained / "train.json").out.endswith("fine, a training spec\n")
    (tmp_path / "train.json").write_text((trained / "train.json").read_text().replace('"batch": 4', '"batch": 0'))
    assert "batch=0 must be at least 1" in cli("check", tmp_path / "train.json").err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not JSON"),
        (b"[1, 2]", "it must be a JSON object with a field 'kind'"),
        (b'{"kind": "Decodr"}', "did you mean 'Decoder'?"),
        (b'{"kind": "LayerNorm", "epps": 1}', "LayerNorm has no field 'epps'"),
        (b'{"kind": "LayerNorm", "eps": "x"}', "'x' is not float"),
        (b"\xff\xfe\x00", "is not text"),
        (b"[" * 100_000, "is nested deeper than any spec"),
    ],
)
def test_files_that_are_no_specs_are_told(content: bytes, told: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_bytes(content)
    code, out, err = cli("check", tmp_path / "odd.json")
    assert (code, out) == (1, "")
    assert told in err and "odd.json" in err
