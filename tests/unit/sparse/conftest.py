"""Tests of the native kernels of sparse layers run with each that this machine runs."""

import pytest
import torch

from formers.errors import FormersError
from formers.native import draws


@pytest.fixture(params=["plain", "avx2", "avx512"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Each kernel in turn; skips where there is none, and those that this machine does not run."""
    name: str = request.param
    try:
        draws.draw(torch.zeros(1, 2), kernel=name)
    except FormersError as error:
        pytest.skip(f"{error}: {name}")
    return name
