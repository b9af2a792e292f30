"""Compiles the engine's sources with a small program of the tests, with sanitizers."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import formers.native

NATIVE = Path(formers.native.__file__).parent
SOURCE, COMMON = NATIVE / "engine" / "source", NATIVE / "common"
AVX512 = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma")
VNNI = (*AVX512, "-mavx512vnni")
FLAGS = {
    "plain": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": AVX512,
    "vnni": VNNI,
    "amx": (*VNNI, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
}


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def compile_program(program: str, sources: tuple[str, ...], into: Path, *flags: str) -> Path:
    """The path of a program of this folder, linked with sources of the engine; skips where there is no compiler."""
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None or platform.system() == "Windows":
        pytest.skip("no C++ compiler with these flags on this machine")
    path = into / Path(program).stem
    files = [str(Path(__file__).parent / program), *(str(SOURCE / source) for source in sources)]
    macros = ["-DFORMERS_X86=1"] if is_x86() else []
    common = ["-std=c++17", "-O1", "-pthread", f"-I{SOURCE}", f"-I{COMMON}", "-o", str(path)]
    done = subprocess.run([compiler, *common, *macros, *flags, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path
