"""Native code compiles for machines that nobody has here, without a warning: Clang for arm64, on Linux and on a Mac."""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import formers.native

pytest.importorskip("ziglang", reason="ziglang, a Clang with the headers of other systems, is not installed")
pybind11 = pytest.importorskip("pybind11")

NATIVE = Path(formers.native.__file__).parent
INCLUDE = [f"-I{path}" for path in (NATIVE / "common", pybind11.get_include(), sysconfig.get_path("include"))]
STRICT = ["-std=c++17", "-O1", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror"]
SIZES = {"source": ["-DLANES=4", "-DROWS=6", "-DCOLUMNS=4"], "engine/source": []}  # as in setup.py


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "aarch64-macos"])
@pytest.mark.parametrize("folder", SIZES)
def test_compiles_for_arm64(folder: str, target: str, tmp_path: Path) -> None:
    clang = [sys.executable, "-m", "ziglang", "c++", "-target", target, *STRICT, *SIZES[folder], *INCLUDE]
    places = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(tmp_path), "ZIG_LOCAL_CACHE_DIR": str(tmp_path)}

    def complaints(source: Path) -> str:
        words = [*clang, "-DKERNEL=kernel_plain", "-c", str(source), "-o", str(tmp_path / f"{source.stem}.o")]
        done = subprocess.run(words, env=places, capture_output=True, text=True)
        return done.stderr if done.returncode or done.stderr else ""

    sources = sorted((NATIVE / folder).glob("*.cpp"))
    with ThreadPoolExecutor(2) as pool:
        assert not "".join(pool.map(complaints, sources))
    assert len(list(tmp_path.glob("*.o"))) == len(sources)
