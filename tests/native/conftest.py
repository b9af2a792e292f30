"""Tests of the native kernels run where these were built."""

import pytest

from formers.native import missing


@pytest.fixture
def built() -> None:
    """Skips where the native library is missing, and says why."""
    why = missing()
    if why is not None:
        pytest.skip(why)
