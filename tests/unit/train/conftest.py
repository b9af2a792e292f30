"""What the tests of training share."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_run import TEXT

from formers.tasks import Causal, Prepared, prepare
from formers.train import TrainSpec


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


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare([TEXT], tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def task(prepared: Prepared) -> Callable[[TrainSpec], Causal]:
    return lambda spec: Causal(prepared, spec)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"
