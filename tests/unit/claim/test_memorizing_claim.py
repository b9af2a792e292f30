"""The claim on the memory at its smallest, and its task: what is to be told can be, and where."""

import io

from rich.console import Console

from formers import claim
from formers.claim.repeat_task import Repeats


def test_a_memory_is_held_against_none() -> None:
    rows = claim.run("memorizing_transformer", console=Console(file=io.StringIO(), width=160), quick=True)
    assert [str(row.goal) for row in rows] == ["value >= 0.9", "value <= 0.06", "value >= 0.5"]
    assert all(0 <= row.value <= 1 for row in rows)


def test_repeats_are_near_in_half_of_the_texts_and_beyond_the_window_in_the_others() -> None:
    task = Repeats()
    inputs, told = task.batch(3).values()
    assert inputs.shape == told.shape == (32, 160)
    assert told[:16].view(16, 5, 32).sum(2).unique().tolist() == [7]
    assert told[16:].sum(1).unique().tolist() == [7]
    for row, marked in zip(inputs, told, strict=True):
        for place in marked.nonzero()[:, 0].tolist():
            found = (row == row[place]).nonzero()[:, 0].tolist()
            assert len(found) == 2, "a symbol is in one code, and in its repeat"
            assert found[1] == place
            assert row[found[0] - 1] == row[place - 1]
            assert (found[0] // 32 == place // 32) if marked.sum() > 7 else (found[0] < 32 and place >= 128)


def test_guessing_gets_what_it_is_said_to_get() -> None:
    task = Repeats()
    assert abs(task.chance - sum(1 / n for n in range(33, 40)) / 7) < 1e-12
