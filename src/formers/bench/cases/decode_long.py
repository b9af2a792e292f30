"""Long prompts: how fast they are read, and how fast a model writes behind them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from formers.bench.llama_cpp import LLAMA_CPP, TINY, LlamaShape, beside_llama_cpp, opened, read, writer
from formers.bench.native import engine_of
from formers.bench.race import race
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.family import make
from formers.report.rows import Row, ratio_at_least

LENGTHS = (512, 3_500)
COUNT = 8  # tokens of a turn


@BENCHES.case(
    "decode",
    "a prompt of 512 and of 3,500 tokens, LLaMA-shaped (dim 2048, 12 layers), bf16, native, random weights",
    unit="tokens/s",
    rival=LLAMA_CPP,
    goal=ratio_at_least(1.0),
)
def prompts(trial: Trial) -> Iterator[Row]:
    """Tokens of the prompt that are read in a second, and tokens that are written in one behind it."""
    shape, lengths, rounds = (TINY, (40,), 1) if trial.quick else (LlamaShape(), LENGTHS, 3)
    session = engine_of(make("llama", **asdict(shape)), "bf16").session(threads=torch.get_num_threads())

    def begin(prompt: list[int]) -> None:
        session.reset(0)
        session.read(prompt)

    for length in lengths:
        prompt = [token % shape.vocab for token in range(length)]
        theirs, why = beside_llama_cpp(shape, "bf16", timed, prompt, rounds)
        with trial.progress(f"ours, {length:,} tokens", 2 * (1 + rounds)) as tick:
            ours = both_ways(partial(begin, prompt), partial(session.write, [0], count=COUNT), rounds, tick)
        for what, tokens, which in (("reading", length, 0), ("writing behind", COUNT, 1)):
            beside = None if theirs is None else tokens / theirs[which]
            row = trial.row(f"{what} a prompt of {length:,}", tokens / ours[which], beside)
            yield row if why is None else replace(row, note=why)


def timed(file: Path, prompt: list[int], rounds: int) -> tuple[float, float]:
    """llama.cpp's seconds for the prompt, and for some tokens behind it."""
    model = opened(file, len(prompt) + (rounds + 1) * COUNT)
    return both_ways(partial(read, model, prompt), writer(model, COUNT), rounds)


def both_ways(
    begin: Callable[[], object], write: Callable[[], object], rounds: int, tick: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Median seconds of reading the prompt, and then those of writing behind it."""
    reading, writing = (race({"": run}, warmup=1, rounds=rounds, tick=tick)[""] for run in (begin, write))
    return reading, writing
