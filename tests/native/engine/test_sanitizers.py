"""The tests of sessions and programs again, in an engine that was compiled with the address and undefined sanitizers.

It takes minutes, and runs where FORMERS_SANITIZE is set: the engine is made for the plainest machine, which any runs.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from compile import SOURCE

if not os.environ.get("FORMERS_SANITIZE"):
    pytest.skip("FORMERS_SANITIZE is not set", allow_module_level=True)

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
RUN = """
import importlib.util, sys
import torch, pytest
spec = importlib.util.spec_from_file_location("formers.native._engine", sys.argv[1])
sys.modules["formers.native._engine"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(pytest.main(["-q", "-x", "-s", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def sanitized(into: Path) -> Path:
    """The compiled module."""
    pybind11 = pytest.importorskip("pybind11")
    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    made = into / "_engine.so"
    flags = ["-std=c++17", "-O1", "-g1", "-pthread", "-fPIC", "-shared", "-Wno-psabi", "-DKERNEL=kernel_plain"]
    sources = sorted(map(str, SOURCE.glob("*.cpp")))
    subprocess.run(["g++", *flags, *SANITIZE, *include, *sources, "-o", str(made)], check=True)
    return made


def preloaded() -> str:
    """The sanitizer must be loaded first, and the C++ library with it, or it does not meet exceptions."""
    asks = (["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so"))
    return ":".join(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() for ask in asks)


def test_sessions_and_programs_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    here = Path(__file__).parent
    found = os.environ | {"LD_PRELOAD": preloaded(), "ASAN_OPTIONS": "detect_leaks=0", "FORMERS_SANITIZE": ""}
    tests = [str(here / name) for name in ("test_session.py", "test_program.py", "test_program_file.py")]
    tests.append(str(here.parent.parent / "laws" / "test_native.py"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(sanitized(tmp_path)), *tests], env=found, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
