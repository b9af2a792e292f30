"""Data sets of trajectories: what they tell, and how they lie on the disk."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from formers import DataError
from formers.control.spaces import Choices, Numbers
from formers.control.trajectories import Trajectories, open_trajectories, write_trajectories
from formers.control.trajectories.store import ABOUT, STEPS


def some(**changes: object) -> Trajectories:
    """Episodes of 3, 1 and 2 steps."""
    told = Trajectories(
        "Here-v0",
        Numbers(2),
        Choices(3),
        torch.arange(12.0).view(6, 2),
        torch.tensor([0, 1, 2, 0, 1, 2]),
        torch.tensor([1.0, 2.0, 3.0, 10.0, -1.0, 5.0]),
        torch.tensor([3, 4, 6]),
        torch.tensor([True, False, True]),
        torch.tensor([0, 1, 0]),
        ("good", "bad"),
    )
    return replace(told, **changes)


def test_what_is_left_to_earn_is_counted_within_an_episode() -> None:
    told = some()
    assert told.left().tolist() == [6, 5, 3, 10, 4, 5]
    assert told.returns.tolist() == [6, 10, 4]
    assert told.starts.tolist() == [0, 3, 4] and told.lengths.tolist() == [3, 1, 2] and len(told) == 3


def test_they_come_back_from_the_disk(tmp_path: Path) -> None:
    told, back = some(), write_trajectories(tmp_path / "data", some())
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [STEPS, ABOUT]
    assert len(back.fingerprint) == 64
    for name in ("environment", "observation", "action", "policies"):
        assert getattr(back, name) == getattr(told, name)
    for name in ("observations", "actions", "rewards", "ends", "terminated", "policy"):
        assert torch.equal(getattr(back, name), getattr(told, name))


def test_another_writing_replaces_the_first(tmp_path: Path) -> None:
    first = write_trajectories(tmp_path, some())
    second = write_trajectories(tmp_path, some(rewards=torch.zeros(6)))
    assert second.fingerprint != first.fingerprint and second.returns.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ends": torch.zeros(0, dtype=torch.int64)}, "holds no episode"),
        ({"ends": torch.tensor([3, 3, 6])}, "ends"),
        ({"ends": torch.tensor([3, 4, 7])}, "observations of 7 steps"),
        ({"actions": torch.tensor([0, 1, 2, 0, 1, 3])}, "among 3 choices"),
        ({"rewards": torch.full((6,), float("nan"))}, "rewards"),
        ({"observations": torch.zeros(6, 3)}, r"cannot be torch.float32 \(6, 3\)"),
        ({"policy": torch.tensor([0, 2, 0])}, "policy"),
        ({"terminated": torch.ones(4, dtype=torch.bool)}, "terminated"),
    ],
)
def test_what_does_not_fit_together_is_told(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        write_trajectories(tmp_path / "data", some(**changes))
    assert not (tmp_path / "data").exists()


def test_what_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no trajectories"):
        open_trajectories(tmp_path / "nowhere")
    write_trajectories(tmp_path, some())
    whole, about = (tmp_path / STEPS).read_bytes(), (tmp_path / ABOUT).read_text()
    for content in (whole[:100], b"", b"no tensors at all"):
        (tmp_path / STEPS).write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            open_trajectories(tmp_path)
    (tmp_path / STEPS).write_bytes(whole)
    for text, told in [
        (about.replace('"format": 1', '"format": 7'), "of format 7"),
        (about.replace('"Choices"', '"Chioces"'), "did you mean 'Choices'"),
        (about.replace('"policies"', '"plicies"'), "damaged"),
        ("{", "not JSON"),
    ]:
        (tmp_path / ABOUT).write_text(text)
        with pytest.raises(DataError, match=told):
            open_trajectories(tmp_path)
    (tmp_path / STEPS).unlink()
    (tmp_path / ABOUT).write_text(about)
    with pytest.raises(DataError, match="damaged"):
        open_trajectories(tmp_path)
