"""A spec as a tree: paths that `--set` takes, and repetitions told once."""

import io
from typing import Any

from rich.console import Console

from formers import Attention, Block, Decoder, make
from formers.report.parts import repeats
from formers.report.tree import spec_tree
from formers.spec import assign


def shown(spec: Any) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(spec_tree(spec))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_equal_blocks_are_told_once() -> None:
    text = shown(make("gpt2"))
    assert "blocks[0..11] = Block x 12" in text
    assert text.count("sublayers[0] = Attention(heads=12, dropout=0.1)") == 1


def test_blocks_that_take_turns_are_told_as_a_unit() -> None:
    spec = make("gpt2", depth=6)
    for i in (1, 3, 5):
        spec = assign(spec, f"blocks[{i}].sublayers[0].heads=6")
    text = shown(spec)
    assert "blocks[0..5] = these 2 x 3" in text
    assert "blocks[0], [2], .. [4] = Block" in text
    assert "blocks[1], [3], .. [5] = Block" in text


def test_paths_of_the_tree_can_be_set() -> None:
    spec = make("gpt2", depth=2)
    assert "embedding = Embedding(position=Learned(length=1024), dropout=0.1)" in shown(spec)
    assert "embedding = Embedding(position=Learned(length=1024))" in shown(assign(spec, "embedding.dropout=0"))


def test_a_model_within_a_model_is_a_branch() -> None:
    text = shown(make("transformer"))
    assert "source = Encoder(name='transformer.source'" in text
    assert "CrossAttention(heads=8)" in text


def test_blocks_within_a_reversible_stack_are_told_as_others() -> None:
    text = shown(make("reformer", depth=4))
    assert "blocks[0] = Reversible(merge='concatenate', streams='copied', last_swap=True)" in text
    assert "blocks[0..1] = Block x 2" in text and "blocks[2] = Block\n" in text
    assert "select=LSH(chunk=256, buckets=512)" in text


def test_layers_side_by_side_are_a_branch() -> None:
    text = shown(make("routing_transformer", depth=2))
    assert "sublayers[0] = Parallel" in text and "layers[1] = Attention(heads=4" in text


def test_single_blocks_are_not_counted() -> None:
    spec = Decoder("one", 10, 8, (Block((Attention(2),)),))
    assert "blocks[0] = Block\n" in shown(spec)


def test_repeats_cover_all_items_in_order() -> None:
    items = "xabababcc"
    found = repeats(items)
    assert "".join("".join(repeat.unit) * repeat.times for repeat in found) == items
    assert [repeat.start for repeat in found] == [0, 1, 7]
    assert found[1].unit == ("a", "b") and found[1].times == 3


def test_the_shortest_unit_is_taken() -> None:
    assert [(repeat.unit, repeat.times) for repeat in repeats("aaaa")] == [(("a",), 4)]
    assert repeats("") == []
