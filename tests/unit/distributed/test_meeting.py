"""Processes that cannot meet, and a process that is alone, say so at once."""

import socket
from datetime import timedelta

import pytest
from torch import nn

from formers.distributed import DistributedError, Distribution, joined
from formers.distributed.environment import is_first, told
from formers.distributed.form import form
from formers.errors import ConfigError
from formers.train import TrainSpec

MET = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_a_process_is_alone_unless_it_is_told_otherwise() -> None:
    assert told({}) is None and is_first({}) and not is_first(MET)
    at = told(MET | {"TORCHELASTIC_RESTART_COUNT": "3"})
    assert at is not None and (at.rank, at.size, at.local, at.port, at.attempt) == (1, 2, 1, 29500, 3)


@pytest.mark.parametrize("missing", list(MET))
def test_an_environment_that_says_half_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks {missing}, by which they meet; start it with torchrun"):
        told({name: value for name, value in MET.items() if name != missing})


@pytest.mark.parametrize("wrong", [{"RANK": "2"}, {"RANK": "one"}, {"MASTER_PORT": "-1"}])
def test_an_environment_that_cannot_be_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        told(MET | wrong)


def test_a_missing_rendezvous_is_one_error_and_not_a_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in (MET | {"MASTER_PORT": port}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DistributedError, match="in vain"), joined(timedelta(seconds=1)):
        pass


@pytest.mark.parametrize(
    ("spread", "match"),
    [
        (Distribution("full"), "divides a model over processes, and there is one"),
        (Distribution(divide_experts=2), "divides a model over processes, and there is one"),
        (Distribution("full", offload=True), "everything is there already"),
        (Distribution(swap=True), "everything is there already"),
        (Distribution(offload=True), "is not moved to the CPU between its blocks"),
        (Distribution(divide_experts=0), "cannot be divided over 0 processes"),
    ],
)
def test_what_one_process_without_a_gpu_cannot_do_is_refused(spread: Distribution, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        form(nn.Linear(2, 2), TrainSpec(1), "cpu", spread)
