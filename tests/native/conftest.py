"""Tests of the native kernels run where these were built."""

import pytest

from formers.native import missing
from formers.native.library import FAILURES, loaded


@pytest.fixture
def built() -> None:
    """Skips where the native library is missing, and says why."""
    why = missing()
    if why is not None:
        pytest.skip(why)


@pytest.fixture(params=["avx512", "avx2", "plain"])
def kernel(request: pytest.FixtureRequest, built: None) -> str:
    """Each kernel in turn; skips those that this machine does not run."""
    if loaded().formers_exponential(None, None, 0, request.param.encode()):
        pytest.skip(f"{FAILURES[2]}: {request.param}")
    name: str = request.param
    return name
