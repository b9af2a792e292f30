"""Specs as values: checked as a whole, written and read, set by path."""

import json

import pytest

from formers import (
    MLP,
    Attention,
    Axial,
    Block,
    Causal,
    ConfigError,
    CrossAttention,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Rotary,
    Window,
    make,
    stack,
)
from formers.spec import assign, diff, from_json, parse


def bad() -> Decoder:
    blocks = stack(Block((Attention(12, pattern=Window(4)), MLP(0), CrossAttention(5))), times=3)
    return Decoder("mine", 100, 100, blocks, Embedding(Axial((8, 8), (50, 49))))


def test_all_problems_are_told_at_once_with_paths_and_mends() -> None:
    with pytest.raises(ConfigError) as caught:
        bad().build()
    text = str(caught.value)
    assert text.startswith("mine cannot be built: 5 problems")
    assert "mine.blocks[0].sublayers[0] and 2 more like it: dim 100 does not split into 12 heads" in text
    assert "fix: heads=10" in text
    assert "a decoder must not see the future, but Window(size=4) is not causal" in text
    assert "fix: pattern=Causal() & (Window(size=4))" in text
    assert "mine.blocks[0].sublayers[1] and 2 more like it: a feed-forward of 0 units" in text
    assert "there is no encoder to attend to" in text
    assert "mine.embedding.position: the widths (50, 49) add up to 99, not to dim 100" in text


def test_a_wrong_type_is_a_problem_with_a_path() -> None:
    with pytest.raises(ConfigError, match=r"gpt2\.dim: '64' is a str, not int"):
        make("gpt2", dim="64").build()
    with pytest.raises(ConfigError, match=r"sublayers\[0\]\.heads and 1 more like it: True is a bool, not int"):
        make("gpt2", dim=64, depth=2, heads=True).build()


def test_an_encoder_decoder_of_two_widths_is_refused() -> None:
    read, write = Block((MLP(8),)), Block((MLP(8),))
    source, target = Encoder("s", 10, 8, (read,)), Decoder("t", 11, 16, (write,))
    with pytest.raises(ConfigError, match=r"(?s)16 wide and attends to an encoder 8 wide.*10 source and 11 target"):
        EncoderDecoder("pair", source, target).build()


def test_a_file_with_faults_tells_them_all() -> None:
    tree = json.loads(make("gpt2", dim=32, depth=1, heads=4).to_json())
    tree["dmi"] = tree.pop("dim")
    tree["blocks"][0]["sublayers"][0]["kind"] = "Atention"
    tree["blocks"][0]["sublayers"][1]["hidden"] = "many"
    with pytest.raises(ConfigError) as caught:
        from_json(json.dumps(tree), "file")
    text = str(caught.value)
    assert "4 problems" in text
    assert "file: Decoder has no field 'dmi'" in text and "did you mean 'dim'?" in text
    assert "unknown kind 'Atention'" in text and "did you mean 'Attention'?" in text
    assert "file.blocks[0].sublayers[1].hidden: 'many' is not int" in text
    assert "Decoder needs the field 'dim'" in text


@pytest.mark.parametrize("text", ["", "[1", "[1, 2]", '"Decoder"', "{}"])
def test_what_is_no_spec_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not JSON|not a spec"):
        from_json(text)


def test_assign_sets_by_path_and_type() -> None:
    spec = make("llama", dim=64, depth=3, heads=4, hidden=96)
    wider = assign(spec, "blocks[*].sublayers[0].heads=8")
    assert [block.sublayers[0].heads for block in wider.blocks] == [8, 8, 8]
    one = assign(spec, "blocks[-1].sublayers[0].pattern=Causal() & Window(7)")
    assert one.blocks[2].sublayers[0].pattern == Causal() & Window(7)
    assert one.blocks[0].sublayers[0].pattern is None
    assert assign(spec, "blocks[0].sublayers[0].kv_heads=none").blocks[0].sublayers[0].kv_heads is None
    assert assign(spec, "blocks[*].sublayers[0].position.theta=500000").blocks[1].sublayers[0].position == Rotary(
        500000
    )
    assert assign(spec, "blocks[*].sublayers[1].activation=relu").blocks[1].sublayers[1].activation == "relu"
    assert assign(spec, "name=7").name == "7"
    assert spec == make("llama", dim=64, depth=3, heads=4, hidden=96)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("dims=4", "did you mean 'dim'"),
        ("dim=wide", "'wide' is not int"),
        ("dim", "sets nothing"),
        ("=3", "empty path"),
        ("blocks[9].residual=none", "there are 3 items"),
        ("blocks[*].sublayers[0].heds=4", r"blocks\[0\].sublayers\[0\] has no field 'heds'; did you mean 'heads'"),
        ("blocks[*].sublayers[1].activation=rely", "'rely' is not one of"),
        ("dim.x=3", "which has no fields"),
        ("dim[0]=3", "which has no items"),
        ("blocks!=3", "is not a path"),
        ("dim=__import__('os')", "no part named '__import__'"),
        ("dim=Rotry()", "did you mean 'Rotary'"),
        ("dim=Rotary(tehta=3)", "did you mean 'theta'"),
        ("dim=Attention()", "missing 1 required positional argument: 'heads'"),
        ("dim=1 & 2.5", "only patterns can be joined"),
        ("dim=(", "cannot be read"),
        ("dim=[x for x in y]", "neither a value nor a part"),
    ],
)
def test_a_wrong_assignment_says_why(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assign(make("llama", dim=64, depth=3, heads=4, hidden=96), assignment)


def test_a_spec_prints_as_it_is_written() -> None:
    spec = make("llama", dim=64, depth=2, heads=4, hidden=96)
    assert parse(repr(spec)) == spec
    pattern = Causal() & (Window(3) | Window(9)) | Window(2)
    assert parse(repr(pattern)) == pattern


def test_diff_names_what_differs() -> None:
    left = make("gpt2", dim=64, depth=2, heads=4)
    right = assign(assign(left, "blocks[1].sublayers[1].hidden=7"), "head=Untied()")
    assert [path for path, *_ in diff(left, right)] == ["blocks[1].sublayers[1].hidden", "head"]


def test_an_unknown_member_or_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama'"):
        make("lama")
    with pytest.raises(ConfigError, match="did you mean 'depth'"):
        make("llama", dept=3)
