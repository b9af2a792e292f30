"""The pool does every piece once, whatever the threads, the load and the forks; seen by sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest
from compile import compile_program

SANITIZE = ("-g", "-fsanitize=thread")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("pool.cpp", ("pool.cpp", "crew.cpp"), tmp_path_factory.mktemp("pool"), *SANITIZE)


@pytest.fixture
def built() -> None:
    """These need no extension: they compile for themselves."""


def test_a_helper_rests_only_if_others_often_wait_for_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [compile_program("crew.cpp", ("crew.cpp",), tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("threads", "busy"), [(1, 0), (2, 0), (2, 2), (16, 0)])
def test_does_every_piece_once(program: Path, threads: int, busy: int) -> None:
    # Threads are started in the child of a fork, which the sanitizer can follow, but does not want to by default.
    environment = os.environ | {"TSAN_OPTIONS": "die_after_fork=0"}
    command = [program, str(threads), str(busy)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout == "0\n"
