"""Attention patterns drawn: the picture is the pattern."""

from pathlib import Path

import pytest
import torch

from formers import Attention, Blocks, Causal, DataError, Everything, FormersError, Same, TopBlocks, Window, make
from formers.attention import Pattern
from formers.call import Call
from formers.places import Places, Spots
from formers.report.drawing import Square, draw, squares
from formers.report.parts import Look, looks
from formers.report.picture import save_picture
from formers.report.square import keys_seen, shares, shares_of, visible
from formers.spec import assign

PATTERNS = [Causal(), Everything(), Window(3), Causal() & (Window(2) | Blocks(4))]


class EvenHeads(Pattern):
    """Even heads see everything before; odd ones themselves."""

    def visible(self, q: Spots, k: Spots, head: torch.Tensor) -> torch.Tensor:
        return (k.pos <= q.pos) & ((head % 2 == 0) | (k.pos == q.pos))


def look(pattern: Pattern, heads: int = 4) -> Look:
    return Look(pattern, heads, ("blocks[0].sublayers[0]",))


def panels(*patterns: Pattern, length: int = 64) -> list[Square]:
    return [square for pattern in patterns for square in squares(look(pattern), length, 64)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_what_is_visible_is_what_attention_sees(pattern: Pattern) -> None:
    """Uniform attention weighs every key that a query sees alike: the weights tell the pattern."""
    site = make("gpt2", dim=8).site.replace(dim=8)
    layer = Attention(2, pattern=pattern).build(site)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.projection.v_proj.weight.copy_(torch.eye(8))
        layer.projection.out_proj.weight.copy_(torch.eye(8))
        y = layer(torch.eye(8)[None], Call(Places.run(0, 8))).y[0]
    torch.testing.assert_close(y > 0, visible(pattern, 2, torch.arange(8), 8)[0])


def test_the_drawing_of_a_window() -> None:
    (square,) = squares(look(Causal() & Window(2)), 4)
    lines = draw(square, ascii_only=True).plain.splitlines()
    assert lines[:2] == ["Causal() & Window(size=2)", "the first 4 tokens; queries down, keys across"]
    assert [line.split() or line for line in lines[2:]] == [
        ["##.", ".", "."],
        ["####.", "."],
        [".", "####."],
        [".", ".", "####"],
    ]


def test_a_plain_start_is_drawn_from_further_away() -> None:
    (square,) = squares(look(Causal() & Window(256)), 1024)
    assert (square.length, square.cell) == (1024, 32)
    assert square.scale == "1,024 tokens, 32 x 32 to a cell"
    assert square.share[31, 31] > 0 and square.share[31, 0] == 0


def test_what_is_plain_everywhere_is_drawn_from_near() -> None:
    (square,) = squares(look(Causal()), 1024)
    assert square.length == 32


def test_heads_that_differ_are_drawn_apart() -> None:
    drawn = squares(look(EvenHeads()), 8)
    assert [square.title for square in drawn] == ["EvenHeads(), heads 0, 2", "EvenHeads(), heads 1, 3"]


def test_shares_are_those_of_the_pairs() -> None:
    exact = visible(Causal(), 1, torch.arange(8), 8).float()
    torch.testing.assert_close(shares(Causal(), 1, 8, 2), torch.nn.functional.avg_pool2d(exact, 4))


@pytest.mark.parametrize(("length", "cells"), [(8, 8), (8, 2), (13, 4), (100, 32)])
def test_shares_of_listed_pairs_are_those_of_the_pattern(length: int, cells: int) -> None:
    seen = visible(Causal() & Window(5), 1, torch.arange(length), length)[0]
    pairs = seen.flatten().nonzero()[:, 0]
    torch.testing.assert_close(shares_of(pairs, length, cells), shares(Causal() & Window(5), 1, length, cells)[0])


def test_a_square_of_a_text_names_its_tokens() -> None:
    square = Square("two words", 2, torch.eye(2), ("'a'", "'long'"))
    lines = draw(square, ascii_only=True).plain.splitlines()
    assert lines == ["two words", "2 tokens; queries down, keys across", "   'a'  ##.", "'long'  . ##"]


def test_sparse_cells_are_told_from_each_other_by_the_darkest() -> None:
    square = Square("sparse", 8, torch.tensor([[0.2, 0.0], [0.1, 0.05]]), top=0.2)
    lines = draw(square, ascii_only=True).plain.splitlines()
    assert "the darkest of which shows 20% of its pairs" in lines[1]
    assert lines[2:] == ["##.", "++::"]


def test_what_content_chooses_is_not_drawn_as_a_pattern() -> None:
    assert squares(look(Causal())._replace(by_content=TopBlocks(4, 2)), 64) == []


@pytest.mark.parametrize("length", [1, 7, 4096, 10_000])
def test_keys_seen_of_plain_causal_attention(length: int) -> None:
    mean, last = keys_seen(Causal(), 4, length)
    assert last == length
    assert mean == pytest.approx((length + 1) / 2, rel=1e-3)


def test_one_document_is_drawn_where_marks_are_read() -> None:
    assert visible(Causal() & Same("document"), 1, torch.arange(3), 3).sum() == 6


def test_patterns_that_layers_share_are_told_once() -> None:
    spec = assign(make("gpt2", depth=3), "blocks[1].sublayers[0].pattern=Causal() & Window(8)")
    assert [(seen.pattern, len(seen.paths)) for seen in looks(spec)] == [(Causal(), 2), (Causal() & Window(8), 1)]


def test_both_sides_of_an_encoder_decoder_are_looked_at() -> None:
    assert [seen.pattern for seen in looks(make("transformer"))] == [Everything(), Causal()]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    file = tmp_path / "new" / "pattern.png"
    save_picture(file, "two", panels(Causal(), Causal() & Window(4)))
    assert file.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in file.parent.iterdir()] == ["pattern.png"]


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"pattern\.png"):
        save_picture(tmp_path / "file" / "pattern.png", "one", panels(Causal()))


def test_a_model_without_attention_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(FormersError, match="no attention"):
        save_picture(tmp_path / "pattern.png", "none", [])
