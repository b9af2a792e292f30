"""The gallery: a picture of every member whose attention can be drawn, and a page that names all."""

from pathlib import Path

import pytest

from formers.errors import DataError
from formers.family import MEMBERS
from formers.report.drawing import example_marks, squares
from formers.report.gallery import MOST, draw_gallery
from formers.report.parts import looks

DRAWN = ("bert", "longformer", "reformer", "sparse_transformer", "sinkhorn_transformer")


def test_members_are_drawn_and_listed(tmp_path: Path) -> None:
    told: list[float] = []
    page = draw_gallery(tmp_path / "made", [MEMBERS[name] for name in DRAWN], told.append)
    text = page.read_text()
    assert told == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for name in DRAWN:
        assert f"## {MEMBERS[name].title} ({MEMBERS[name].year})" in text and f"`{name}`" in text
        picture = page.parent / f"{name}.png"
        assert picture.exists() == (f"({name}.png)" in text) == (name != "sinkhorn_transformer")
        assert not picture.exists() or picture.read_bytes().startswith(b"\x89PNG")
    assert "soft mixture" in text
    assert f"{MOST} of the 4 kinds of heads" in text


def test_global_tokens_of_an_example_see_all_and_are_seen_by_all() -> None:
    (look, *_) = looks(MEMBERS["longformer"].make(**MEMBERS["longformer"].small))
    share = squares(look, 64, 64)[0].share
    marks = example_marks(look.pattern, 64)["global"]
    assert marks.sum() == 4
    assert bool((share[:4] == 1).all()) and bool((share[:, :4] == 1).all()) and not bool((share == 1).all())


def test_heads_are_named_by_what_they_see() -> None:
    (look, *_) = looks(MEMBERS["sparse_transformer"].make(**MEMBERS["sparse_transformer"].small))
    titles = [square.title for square in squares(look, 64, 64)]
    assert len(set(titles)) == len(titles) > 1
    assert titles[0].endswith(", head 0") and "ByHead" not in titles[0]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        draw_gallery(tmp_path / "file" / "inside", [MEMBERS["bert"]])
