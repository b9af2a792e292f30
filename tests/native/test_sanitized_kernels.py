"""The tests of attention's kernels again, compiled with sanitizers, for the plainest machine."""

from pathlib import Path

import pytest
from sanitized import build, run_tests, wanted

import formers.native

if not wanted():
    pytest.skip("FORMERS_SANITIZE is not set", allow_module_level=True)

SOURCE = Path(formers.native.__file__).parent / "source"
PLAIN = ("-DLANES=4", "-DROWS=4", "-DCOLUMNS=2", "-DKERNEL=kernel_plain")
PREPARE = """
import torch
from formers.native import library
library.STEM = sys.argv[1].removesuffix(".so")
assert not isinstance(library.open_library(), str), library.open_library()
"""


def test_kernels_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    made = build(tmp_path / "_sorted.so", sorted(map(str, SOURCE.glob("*.cpp"))), *PLAIN)
    here = Path(__file__).parent
    run_tests(PREPARE, made, [here / "test_visits.py", here / "test_sorted_chunks.py", here / "test_hashing.py"])
