"""Decoding while another process has one of the cores: threads that wait for it must not make a token slower."""

from collections.abc import Iterator

import torch

from formers.bench.busy import one_core_busy
from formers.bench.cases.scaling import MEDIUM, TINY, seconds
from formers.bench.native import Streams, engine_of
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.report.rows import Row, ratio_at_least


@BENCHES.case(
    "decode",
    "one core busy with another process: the 800M class with all threads beside one thread, bf16, native, greedy",
    unit="tokens/s",
    rival=Rival("the same with one thread, one core busy as well"),
    goal=ratio_at_least(0.9),
)
def busy_core(trial: Trial) -> Iterator[Row]:
    """Dense and sparse, in turns with one thread."""
    size = TINY if trial.quick else MEDIUM
    for row in ("dense", "+ sparse loss"):
        engine = engine_of(size.spec(row, size.depth), size.dtype)
        threads = {"all threads": torch.get_num_threads(), "one thread": 1}
        contestants = {name: Streams(engine, 1, size.count, count) for name, count in threads.items()}
        with one_core_busy():
            took = seconds(trial, contestants, size)
        note = f"{threads['all threads']} threads"
        yield trial.row(
            f"{size.preset}, {row}, one core busy", 1 / took["all threads"], 1 / took["one thread"], note=note
        )
