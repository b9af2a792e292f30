"""Tests of the native decode engine run where it was built."""

import pytest

from formers.native.engine.library import missing


@pytest.fixture(autouse=True)
def built() -> None:
    """Skips where the engine is missing, and says why."""
    why = missing()
    if why is not None:
        pytest.skip(why)
