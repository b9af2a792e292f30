"""The native library is there where it can be, and says why where it is not."""

import shutil
from pathlib import Path

import pytest
import torch

from formers import native
from formers.errors import FormersError
from formers.native import library


def test_is_built_where_there_is_a_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler on this machine")
    assert native.missing() is None


def test_says_why_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    monkeypatch.setattr(library, "open_library", library.open_library.__wrapped__)
    q = torch.zeros(1, 1, 4, 4)
    rules = native.Rules(4, 1, 0, False, 0, False, True, True, 0.0, 1.0)
    why = native.refuses(q, q, q, rules)
    assert why is not None
    assert "was not built" in why
    with pytest.raises(FormersError, match="reinstall formers"):
        library.loaded()


def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch, built: None) -> None:
    class Longer(library.Problem):
        _fields_ = (("more", library.ctypes.c_int64),)

    monkeypatch.setattr(library, "Problem", Longer)
    assert "other sources" in str(library.open_library.__wrapped__())


def test_a_broken_file_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / f"_sorted{library.EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    assert "cannot be loaded" in str(library.open_library.__wrapped__())
