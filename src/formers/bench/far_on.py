"""What a token costs far on: streams that have read few tokens and many, in the native engine and in PyTorch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from formers.bench.race import race
from formers.bench.trial import Trial
from formers.native.engine import Engine, lower
from formers.report.rows import Row, value_at_most

COUNT, PIECE = 32, 4096  # tokens that are timed, and that are read at a time before


def far_on(trial: Trial, name: str, spec: Any, near: int, far: int) -> Iterator[Row]:
    """Microseconds of a token behind so many tokens of any bytes, both streams in turns, by either engine."""
    warmup, rounds = (1, 1) if trial.quick else (2, 15)
    torch.manual_seed(0)
    model = spec.build().eval()
    for engine, make in (("native", native), ("PyTorch", stepped)):
        with trial.progress(f"{name}, {engine}", 2 * (warmup + rounds)) as tick:
            turns = {str(length): make(model, length) for length in (near, far)}
            seconds = race(turns, warmup=warmup, rounds=rounds, tick=tick)
        for length in (near, far):
            value = 1e6 * seconds[str(length)] / COUNT
            yield trial.row(f"{name}, {engine}: a token after {length:,}", value)
        growth = seconds[str(far)] / seconds[str(near)]
        told = f"{name}, {engine}: the later over the earlier"
        yield trial.row(told, growth, unit="times", goal=value_at_most(1.1))


def text(length: int) -> Tensor:
    """(1, length) random tokens."""
    return torch.randint(258, (1, length), generator=torch.Generator().manual_seed(0))


def native(model: Any, length: int) -> Callable[[], None]:
    """A stream of the native engine that has read so many tokens, and writes on."""
    session = Engine(lower(model, "fp32")).session()
    tokens = text(length)[0].tolist()
    for start in range(0, length, PIECE):
        session.read(tokens[start : start + PIECE])
    last = tokens[-1:]

    def turn() -> None:
        last[:] = session.write(last, count=COUNT)[0][-1:]

    return turn


def stepped(model: Any, length: int) -> Callable[[], None]:
    """The same through the model itself; every turn goes on from the same state."""
    with torch.inference_mode():
        state, tokens = None, text(length)
        for start in range(0, length, PIECE):
            state = model.step(tokens[:, start : start + PIECE], state).state

    def turn() -> None:
        now, token = state, tokens[:, -1:]
        with torch.inference_mode():
            for _ in range(COUNT):
                out = model.step(token, now)
                now, token = out.state, out.logits[:, -1:].argmax(-1)

    return turn
