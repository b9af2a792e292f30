"""Decoding under a window: a token costs the same after 100,000 tokens as after 1,000."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from formers.attention import Attention, Causal, Window
from formers.bench.patterned import WINDOW
from formers.bench.race import race
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.family.longformer import longformer_lm
from formers.feedforward import MLP
from formers.model import Decoder
from formers.native.engine import Engine, lower
from formers.position import Rotary
from formers.report.rows import Row, value_at_most

SIZES = {"vocab": 258, "dim": 256, "depth": 4, "heads": 8}
COUNT, PIECE = 32, 4096  # tokens that are timed, and that are read at a time before


def members() -> dict[str, Any]:
    """Decoders all of whose layers have a window."""
    attention = Attention(8, pattern=Causal() & Window(WINDOW), position=Rotary())
    blocks = stack(Block((attention, MLP(1024))), times=4)
    return {
        f"window of {WINDOW}": Decoder("windowed", 258, 256, blocks),
        "longformer_lm, windows of 64 to 256, two dilated heads above": longformer_lm(
            window=(64, WINDOW), hidden=1024, dropout=0.0, **SIZES
        ),
    }


@BENCHES.case(
    "attention",
    "decoding after 1,000 and after 100,000 tokens (dim 256, 4 layers)",
    unit="us",
    better="lower",
)
def decode_far(trial: Trial) -> Iterator[Row]:
    """Both streams in turns, in the native engine and in PyTorch."""
    near, far = (100, 1000) if trial.quick else (1_000, 100_000)
    warmup, rounds = (1, 1) if trial.quick else (2, 15)
    for name, spec in members().items():
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
