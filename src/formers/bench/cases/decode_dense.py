"""Dense decoding: as fast as llama.cpp, and as the memory that the weights are read from."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from formers.bench.llama_cpp import LLAMA_CPP, TINY, LlamaShape, beside_llama_cpp, greedy
from formers.bench.native import BYTES, PROMPT, Streams, engine_of, machine_bandwidth, touched
from formers.bench.race import race
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.family import make
from formers.report.rows import Row, ratio_at_least, value_at_least

ROUNDS = 9


@BENCHES.case(
    "decode",
    "LLaMA-shaped (dim 2048, 12 layers, 750M parameters), native, greedy, one stream, random weights",
    unit="tokens/s",
    rival=LLAMA_CPP,
    goal=ratio_at_least(1.0),
)
def llama(trial: Trial) -> Iterator[Row]:
    """Tokens a second by the type of the weights, and the share of the machine's bandwidth that they are read with."""
    shape, count = (TINY, 2) if trial.quick else (LlamaShape(), 8)
    spec = make("llama", **asdict(shape))
    for dtype in ("bf16", "int8"):
        ours = Streams(engine_of(spec, dtype), 1, count)
        theirs, why = rival(trial, shape, dtype, count)
        seconds, bandwidth = paced(trial, ours, dtype)
        took = seconds / count
        row = trial.row(f"LLaMA-shaped, {dtype}", 1 / took, None if theirs is None else 1 / theirs)
        yield row if why is None else replace(row, note=why)
        reached = touched(spec) * BYTES[dtype] / took / bandwidth
        note = f"of {bandwidth / 1e9:.1f} GB/s, measured in turns with the tokens"
        name = f"LLaMA-shaped, {dtype}: share of the bandwidth"
        yield trial.row(name, reached, unit="", rival=None, goal=value_at_least(0.85), note=note)


def paced(trial: Trial, ours: Streams, dtype: str) -> tuple[float, float]:
    """Seconds of a turn, and bytes a second that memory is read with between the turns: where others share the machine,
    that changes from second to second."""
    read: list[float] = []
    turns: dict[str, Callable[[], object]] = {
        "ours": ours,
        "memory": lambda: read.append(machine_bandwidth(torch.get_num_threads())),
    }
    rounds = 1 if trial.quick else ROUNDS
    with trial.progress(f"ours, {dtype}", 2 * (1 + rounds)) as tick:
        seconds = race(turns, warmup=1, rounds=rounds, tick=tick)["ours"]
    return seconds, median(read[1:])


def rival(trial: Trial, shape: LlamaShape, dtype: str, count: int) -> tuple[float | None, str | None]:
    """llama.cpp's median seconds of a token, or why there are none."""
    return beside_llama_cpp(shape, dtype, timed, count, 1 if trial.quick else ROUNDS)


def timed(file: Path, count: int, rounds: int) -> float:
    """Load the model, and time its tokens."""
    run = greedy(file, list(range(PROMPT)), count)
    return race({"theirs": run}, warmup=1, rounds=rounds)["theirs"] / count
