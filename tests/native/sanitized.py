"""Tests run again in a process of their own, on native code that was compiled with sanitizers.

It takes minutes, and is done where FORMERS_SANITIZE is set.
"""

import os
import subprocess
import sys
from pathlib import Path

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
RUN = "\nsys.exit(pytest.main(['-q', '-x', '-s', '-p', 'no:cacheprovider', *sys.argv[2:]]))\n"


def wanted() -> bool:
    """Whether to do it at all."""
    return bool(os.environ.get("FORMERS_SANITIZE"))


def build(made: Path, sources: list[str], *flags: str) -> Path:
    """`made`, a shared object."""
    common = ["-std=c++17", "-O1", "-g1", "-pthread", "-fPIC", "-shared", "-Wno-psabi"]
    subprocess.run(["g++", *common, *FLAGS, *flags, *sources, "-o", str(made)], check=True)
    return made


def run_tests(prepare: str, made: Path, tests: list[Path]) -> None:
    """Prepare a process by some Python, which finds the path of what was compiled in sys.argv[1], and run tests in it."""
    found = os.environ | {"LD_PRELOAD": _preloaded(), "ASAN_OPTIONS": "detect_leaks=0", "FORMERS_SANITIZE": ""}
    words = [sys.executable, "-c", "import sys, pytest\n" + prepare + RUN, str(made), *map(str, tests)]
    done = subprocess.run(words, env=found, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-6000:]


def _preloaded() -> str:
    """The sanitizer must be loaded first, and the C++ library with it, or it does not meet exceptions."""
    asks = (["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so"))
    return ":".join(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() for ask in asks)
