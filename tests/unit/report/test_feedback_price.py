"""What a feedback memory costs; that a step does and keeps what is told is checked for every member."""

import pytest

from formers import MEMBERS, make
from formers.report.cost import cost
from formers.report.gallery import draw_gallery

MEMBER = MEMBERS["feedback_transformer"]


def test_the_mean_over_a_pass_is_that_of_its_tokens() -> None:
    spec = make("feedback_transformer", **MEMBER.small)
    one_by_one = [cost(spec, length).total.last for length in range(1, 13)]
    assert cost(spec, 12).total.operations == pytest.approx(sum(one_by_one) / 12)


def test_the_state_does_not_depend_on_the_depth_and_ends_at_the_reach() -> None:
    for depth in (2, 5):
        total = cost(make("feedback_transformer", **{**MEMBER.small, "depth": depth}), 100).total
        assert total.token == 4 * 2 * MEMBER.small["dim"]
        assert total.state == MEMBER.small["reach"] * total.token


def test_the_gallery_tells_why_there_is_no_picture(tmp_path) -> None:
    page = draw_gallery(tmp_path, [MEMBER]).read_text()
    assert "one memory of each of the 5 tokens before its own" in page
    assert not list(tmp_path.glob("*.png"))
