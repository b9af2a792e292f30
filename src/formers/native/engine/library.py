"""The compiled engine: whether it is there, and its kernels."""

import importlib
from functools import cache
from types import ModuleType

from formers.errors import FormersError


@cache
def _open() -> ModuleType | str:
    """The compiled module, or why there is none, in words."""
    try:
        return importlib.import_module("formers.native._engine")
    except ModuleNotFoundError:
        return (
            "the native engine was not built: no C++ compiler was found, or it failed, when formers was installed; "
            "install one (g++ or clang) and reinstall formers"
        )
    except ImportError as error:
        return f"the native engine was built, but cannot be loaded: {error}"


def missing() -> str | None:
    """Why the engine cannot be used here, in words; None where it can."""
    found = _open()
    return found if isinstance(found, str) else None


def engine() -> ModuleType:
    """The compiled module; raises FormersError where there is none."""
    found = _open()
    if isinstance(found, str):
        raise FormersError(found)
    return found


def fastest() -> str:
    """The best kernel that this machine runs: 'amx', 'vnni', 'avx512', 'avx2' or 'plain'."""
    name: str = engine().fastest()
    return name
