"""What the tests of tasks share."""

import io
from collections.abc import Iterator

import pytest
import torch
from rich.console import Console


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from threads, and lose much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO())
