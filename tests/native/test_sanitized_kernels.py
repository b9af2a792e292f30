"""The tests of attention's kernels again, compiled with sanitizers, for the plainest machine."""

from pathlib import Path

import pytest
from sanitized import build, run_tests, wanted

import formers.native
from formers.native.gemm.library import NO_TILES, open_tiles

if not wanted():
    pytest.skip("FORMERS_SANITIZE is not set", allow_module_level=True)

NATIVE = Path(formers.native.__file__).parent
COMMON = f"-I{NATIVE / 'common'}"
PLAIN = ("-DLANES=4", "-DROWS=4", "-DCOLUMNS=2", "-DKERNEL=kernel_plain")
PREPARE = """
import torch
from formers.native import library
library.STEM = sys.argv[1].removesuffix(".so")
assert not isinstance(library.open_library(), str), library.open_library()
"""

TILES = (
    *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"),
    *("-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
)
PREPARE_KEPT = """
from formers.native.kept import library
library.STEM = sys.argv[1].removesuffix(".so")
assert not isinstance(library.open_kept(), str), library.open_kept()
"""
PREPARE_TILES = """
from formers.native.gemm import library
library.STEM = sys.argv[1].removesuffix(".so")
assert not isinstance(library.open_tiles(), str), library.open_tiles()
"""


def test_kernels_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    made = build(tmp_path / "_sorted.so", sources("source"), COMMON, *PLAIN)
    here = Path(__file__).parent
    chosen = here.parent / "unit" / "sparse"
    tests = [here / name for name in ("test_visits.py", "test_sorted_chunks.py", "test_hashing.py")]
    run_tests(PREPARE, made, [*tests, chosen / "test_controller.py", chosen / "test_choosing_native.py"])


def test_kept_memory_is_touched_by_nobody_else(tmp_path: Path) -> None:
    made = build(tmp_path / "_kept.so", sources("kept/source"))
    run_tests(PREPARE_KEPT, made, [Path(__file__).parent / "test_kept.py"])


def test_products_by_tiles_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    if open_tiles() == NO_TILES:
        pytest.skip(NO_TILES)
    made = build(tmp_path / "_gemm.so", sources("gemm/source"), COMMON, "-DFORMERS_X86=1", *TILES)
    run_tests(PREPARE_TILES, made, [Path(__file__).parent / "test_gemm.py"])


def sources(folder: str) -> list[str]:
    return sorted(map(str, (NATIVE / folder).glob("*.cpp")))
