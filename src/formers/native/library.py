"""The library of attention's native kernels: its C structures, and how it, and any other, is found and loaded.

It has a plain C interface and no tie to PyTorch's, so one build serves every version of PyTorch. ctypes gives up the
interpreter's lock during a call.
"""

import ctypes
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from formers.errors import FormersError

STEM = "_sorted"
STALE = "the native library was built from other sources than this Python code; reinstall formers"
FAILURES = {
    1: "there is not enough memory for the scratch space of native kernels",
    2: "this machine does not run the native kernel that was asked for",
}


class Array(ctypes.Structure):
    """A tensor whose last dimension is contiguous: its address, and strides in elements."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("row", ctypes.c_int64),
    )


FUNCTIONS = (
    *("formers_fastest", "formers_forward", "formers_backward", "formers_problem_size"),
    *("formers_nearest", "formers_put_in_order"),
    *("formers_visit_forward", "formers_visit_deltas", "formers_visit_backward", "formers_visits_size"),
)
SIZES = ("batch", "heads", "rounds", "length", "dim", "value_dim")
RULES = ("chunk", "before", "after", "wrap", "reach", "same", "once", "causal")
TENSORS = (
    *("q", "k", "v", "out", "lse", "total", "grad", "delta", "grad_q", "grad_k", "grad_v"),
    *("beside_k", "beside_v", "grad_beside_k", "grad_beside_v"),
    *("order", "slot", "bucket", "position", "real"),
)


class Problem(ctypes.Structure):
    """All that a call works on; the same as `Problem` in source/problem.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in SIZES + RULES),
        ("self_bias", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("rate", ctypes.c_double),
        ("seed", ctypes.c_int64),
        *((name, Array) for name in TENSORS),
    )


def open_built(stem: str) -> ctypes.CDLL | str:
    """The library of this name that was built with the package, or why there is none, in words."""
    here = Path(__file__).parent
    found = next((path for suffix in EXTENSION_SUFFIXES if (path := here / (stem + suffix)).exists()), None)
    if found is None:
        return (
            "the native library was not built: no C++ compiler was found, or it failed, when formers was installed; "
            "install one (g++ or clang) and reinstall formers"
        )
    try:
        library = ctypes.CDLL(str(found))
    except OSError as error:
        return f"the native library was built, but cannot be loaded: {error}"
    if hasattr(library, "formers_use_threads"):
        library.formers_use_threads(_fork_of_pytorch())
    return library


def _fork_of_pytorch() -> ctypes.c_void_p:
    """What gives work to the threads that PyTorch keeps, where it is OpenMP's; else null, and the library makes its own."""
    found = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if sys.platform == "linux" else None
    return ctypes.cast(found, ctypes.c_void_p) if found else ctypes.c_void_p()


@cache
def open_library() -> ctypes.CDLL | str:
    """The loaded library, or why there is none, in words."""
    library = open_built(STEM)
    if isinstance(library, str):
        return library
    known = all(hasattr(library, function) for function in FUNCTIONS)
    if not known or library.formers_problem_size() != ctypes.sizeof(Problem):
        return STALE
    library.formers_fastest.restype = ctypes.c_char_p
    return library


def missing() -> str | None:
    """Why the native kernels cannot be used here, in words; None where they can."""
    library = open_library()
    return library if isinstance(library, str) else None


def loaded() -> ctypes.CDLL:
    """The library; raises `FormersError` where there is none."""
    library = open_library()
    if isinstance(library, str):
        raise FormersError(library)
    return library


def fastest() -> str:
    """The best kernel that this machine runs: 'avx512', 'avx2' or 'plain'."""
    return loaded().formers_fastest().decode()


def call(function: str, problem: ctypes.Structure, kernel: str | None, threads: int) -> None:
    """Run a function such as 'formers_forward' on its structure; raises `FormersError` in words where it fails."""
    name = (kernel or fastest()).encode()
    code = loaded()[function](ctypes.byref(problem), name, ctypes.c_int64(threads))
    if code:
        raise FormersError(FAILURES[code])
