"""Builds the native code; all else about the package is in pyproject.toml.

What depends on the instruction set is compiled once for each, and the library chooses when it is loaded. All of it is
optional: where there is no compiler for it, the package installs without, and PyTorch does the work.
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-pthread"]
X86 = platform.machine().lower() in ("x86_64", "amd64")

# Flags of an instruction set.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"]
VNNI = [*AVX512, "-mavx512vnni", "-mavx512bf16"]
AMX = [*VNNI, "-mamx-tile", "-mamx-int8", "-mamx-bf16"]

# LANES floats are in a vector, ROWS x COLUMNS vectors of a product fill the registers.
SORTED = {
    "avx512": (AVX512, {"LANES": 16, "ROWS": 6, "COLUMNS": 4}),
    "avx2": (AVX2, {"LANES": 8, "ROWS": 6, "COLUMNS": 2}),
    "plain": ([], {"LANES": 4, "ROWS": 4, "COLUMNS": 2}),
}
SORTED_ELSEWHERE = {"plain": ([], {"LANES": 4, "ROWS": 6, "COLUMNS": 4})}
ENGINE = {"amx": (AMX, {}), "vnni": (VNNI, {}), "avx512": (AVX512, {}), "avx2": (AVX2, {}), "plain": ([], {})}
ENGINE_ELSEWHERE = {"plain": ([], {})}


TILES = {"amx": (AMX, {})}
COMMON = "src/formers/native/common"  # headers that several of them share


class Kernels(Extension):
    """kernel.cpp in a folder for every instruction set, and its other sources once."""

    def __init__(self, name: str, folder: str, sets: dict, flags: tuple = (), *, bound: bool = False) -> None:
        self.folder, self.sets, self.flags, self.bound = Path(folder), sets, list(flags), bound
        self.once = sorted(path.name for path in self.folder.glob("*.cpp") if path.name != "kernel.cpp")
        sources = [str(path) for path in sorted(self.folder.glob("*.cpp"))]
        headers = [str(path) for folder in (self.folder, Path(COMMON)) for path in sorted(folder.glob("*.h"))]
        super().__init__(name, sources=sources, depends=headers, language="c++", optional=True)


class BuildKernels(build_ext):
    """Compiles and links them. bound: by pybind11, to a Python module."""

    def build_extension(self, ext: Kernels) -> None:
        jobs = []
        for name, (flags, macros) in ext.sets.items():
            given = [*((macro, str(value)) for macro, value in macros.items()), ("KERNEL", f"kernel_{name}")]
            jobs.append((ext, "kernel.cpp", name, flags, given))
        jobs += [(ext, source, "any", [], []) for source in ext.once]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [made for some in pool.map(lambda job: self._compile(*job), jobs) for made in some]
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, target, target_lang="c++", extra_postargs=self._link_flags(ext))

    def _compile(self, ext: Kernels, source: str, folder: str, flags: list, macros: list) -> list:
        into = str(Path(self.build_temp) / ext.name / folder)
        given = macros + ([("FORMERS_X86", "1")] if X86 else [])
        include = [COMMON, *(_pybind11() if ext.bound else [])]
        return self.compiler.compile(
            [str(ext.folder / source)], into, given, include_dirs=include, extra_postargs=FLAGS + ext.flags + flags
        )

    def _link_flags(self, ext: Kernels) -> list:
        apple = ["-undefined", "dynamic_lookup"] if ext.bound and platform.system() == "Darwin" else []
        return ["-pthread", *apple]


def _pybind11() -> list:
    try:
        import pybind11
    except ImportError as error:
        raise CompileError("pybind11 is not installed; pip install it, or build with isolation") from error
    return [pybind11.get_include()]


setup(
    ext_modules=[
        Kernels("formers.native._sorted", "src/formers/native/source", SORTED if X86 else SORTED_ELSEWHERE),
        Kernels(
            "formers.native._engine",
            "src/formers/native/engine/source",
            ENGINE if X86 else ENGINE_ELSEWHERE,
            ("-fno-trapping-math", "-Wno-psabi"),
            bound=True,
        ),
        Kernels("formers.native._kept", "src/formers/native/kept/source", {}),
        *([Kernels("formers.native._gemm", "src/formers/native/gemm/source", TILES)] if X86 else []),
    ],
    cmdclass={"build_ext": BuildKernels},
)
