"""The tests of sessions and programs again, in an engine that was compiled with sanitizers, for the plainest machine."""

import sysconfig
from pathlib import Path

import pytest
from compile import COMMON, SOURCE
from sanitized import build, run_tests, wanted

if not wanted():
    pytest.skip("FORMERS_SANITIZE is not set", allow_module_level=True)

PREPARE = """
import importlib.util, torch
spec = importlib.util.spec_from_file_location("formers.native._engine", sys.argv[1])
sys.modules["formers.native._engine"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""


def test_sessions_and_programs_touch_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}", f"-I{COMMON}"]
    sources = sorted(map(str, SOURCE.glob("*.cpp")))
    made = build(tmp_path / "_engine.so", sources, "-DKERNEL=kernel_plain", *include)
    here = Path(__file__).parent
    tests = [
        here / name for name in ("test_session.py", "test_program.py", "test_program_file.py", "test_kernel_parts.py")
    ]
    run_tests(PREPARE, made, [*tests, here.parent.parent / "laws" / "test_native.py"])
