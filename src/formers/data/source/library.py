"""Real text that every machine with Python has: the sources of the standard library."""

import sysconfig
from pathlib import Path

from formers.data.source.files import Documents, files_below
from formers.errors import DataError

# Other people's packages, tests (mostly data), and what programs wrote: code tables, help pages, build settings.
_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings", "pydoc_data"}
)


def standard_library() -> Documents:
    """The source files of the running Python's standard library, one document each, in sorted order.

    Without installed packages, tests and generated files. Raises DataError where Python came without its sources.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    sources = [
        file
        for file in files_below(folder, _LEFT_OUT)
        if file.suffix == ".py" and not file.name.startswith("_sysconfigdata")
    ]
    if not sources:
        raise DataError(f"this Python came without the sources of its library in {folder}; name your own data")
    return Documents([], sources, place=str(folder))
