"""Builds the native kernels; all else about the package is in pyproject.toml.

One source is compiled once for each instruction set, and the library chooses when it is loaded. It is optional: where
there is no compiler for it, the package installs without, and PyTorch does the work.
"""

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path("src/formers/native/source")
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-pthread"]
# LANES floats in a vector; ROWS x COLUMNS vectors of a product fill the registers.
X86 = {
    "avx512": (["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"], (16, 6, 4)),
    "avx2": (["-mavx2", "-mfma"], (8, 6, 2)),
    "plain": ([], (4, 4, 2)),
}
OTHERS = {"plain": ([], (4, 6, 4))}


class BuildKernels(build_ext):
    """Compiles kernel.cpp for every instruction set of this kind of machine."""

    def build_extension(self, ext: Extension) -> None:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        objects = []
        for name, (flags, shape) in (X86 if x86 else OTHERS).items():
            sizes = zip(("LANES", "ROWS", "COLUMNS"), map(str, shape), strict=True)
            objects += self._compile("kernel.cpp", name, flags, [*sizes, ("KERNEL", f"kernel_{name}")])
        objects += self._compile("sorted.cpp", "any", [], [("FORMERS_X86", "1")] if x86 else [])
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(objects, target, target_lang="c++", extra_postargs=["-pthread"])

    def _compile(self, source: str, folder: str, flags: list, macros: list) -> list:
        into = str(Path(self.build_temp) / folder)
        return self.compiler.compile([str(SOURCE / source)], into, macros, extra_postargs=FLAGS + flags)


setup(
    ext_modules=[
        Extension(
            "formers.native._sorted",
            sources=[str(SOURCE / "kernel.cpp"), str(SOURCE / "sorted.cpp")],
            depends=[str(path) for path in sorted(SOURCE.glob("*.h"))],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
