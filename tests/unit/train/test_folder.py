import pytest

from formers.train.folder import remove_folder, sweep, whole_folder


def test_a_folder_appears_when_it_is_complete(tmp_path):
    place = tmp_path / "whole"
    with whole_folder(place) as folder:
        (folder / "file").write_text("content")
        assert not place.exists()
    assert (place / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_nothing_is_left_of_a_folder_that_failed(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "whole") as folder:
        (folder / "file").write_text("content")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / "whole.tmp").mkdir()
    (tmp_path / "whole.tmp" / "half").write_text("old")
    with whole_folder(tmp_path / "whole") as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["file"]


def test_a_sweep_removes_unfinished_folders_only(tmp_path):
    for name in ("step-000001", "step-000002.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_folder_is_removed_with_all_that_is_in_it(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("content")
    remove_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []
