"""Evaluating with a memory: each segment is read once, where a sliding window reads its whole context for every token."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.family import make
from formers.report.curves import Curve, save_curves
from formers.report.rows import Row, ratio_at_least

SLIDING = Rival("a plain decoder of the same size, whose window slides by one token and is computed anew each time")
GOAL, AT = 100, 1024  # times faster, where a token sees so many
LENGTHS = (128, 256, 512, 1024, 2048)
SEGMENT = 128  # tokens that are read at once
SIZES = {"vocab": 258, "dim": 256, "depth": 4, "heads": 4, "hidden": 1024, "dropout": 0.0}
SMALL = {"vocab": 258, "dim": 16, "depth": 1, "heads": 2, "hidden": 16, "dropout": 0.0}


@BENCHES.case(
    "memory",
    "evaluating with Transformer-XL's memory of 128 to 2,048 tokens against a window as long that slides (dim 256, 4 layers)",
    unit="ms",
    better="lower",
    rival=SLIDING,
)
def evaluation(trial: Trial) -> Iterator[Row]:
    """Time for a token, by how far back every token sees at least; a picture of it is left in the run's folder.

    Ours reads a segment of 128 at once after its memory. The window gives one prediction a pass: what a model without a
    state must do if every token is to have its whole context. It is GPT-2's, by fused attention.
    """
    lengths, sizes = ((32, 64), SMALL) if trial.quick else (LENGTHS, SIZES)
    segment = 16 if trial.quick else SEGMENT
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    warmup, rounds = (1, 1) if trial.quick else (2, 7)
    with trial.progress(trial.case.title, 2 * (warmup + rounds) * len(lengths)) as tick:
        for length in lengths:
            torch.manual_seed(0)
            model = make("transformer_xl", segment=segment, memory=length, **sizes).build().eval()
            plain = make("gpt2", length=length, **sizes).build().eval()
            turns = {"ours": remembered(model, segment, length), "window": slid(plain, length)}
            seconds = race(turns, warmup=warmup, rounds=rounds, tick=tick)
            ours[length], theirs[length] = seconds["ours"] / segment, seconds["window"]
    for length in lengths:
        goal = ratio_at_least(GOAL) if length == AT else None
        yield trial.row(f"a token that sees {length:,} before it", 1e3 * ours[length], 1e3 * theirs[length], goal=goal)
    path = trial.keep("memory.png")
    save_curves(
        path, "Evaluating one token", [[curve("segments with a memory", ours), curve("sliding window", theirs)]]
    )
    trial.console.print(f"picture: {path}", highlight=False)


def curve(name: str, seconds: dict[int, float]) -> Curve:
    """Milliseconds a token against what it sees."""
    values = tuple(1e3 * value for value in seconds.values())
    return Curve(name, name != "sliding window", "ms a token", tuple(seconds), values)


def text(length: int) -> Tensor:
    """(1, length) random tokens."""
    return torch.randint(258, (1, length), generator=torch.Generator().manual_seed(0))


def remembered(model: Any, segment: int, memory: int) -> Callable[[], object]:
    """One more segment after a memory that is full; every turn goes on where the one before it stopped."""
    state: list[Any] = [None]
    before = -(-memory // segment) * segment
    tokens = text(before + segment)
    with torch.inference_mode():
        state[0] = model(tokens[:, :before], logits_at=None).state

    def turn() -> None:
        with torch.inference_mode():
            state[0] = model(tokens[:, before:], state[0]).state

    return turn


def slid(model: Any, length: int) -> Callable[[], object]:
    """One window, read for its last token."""
    tokens = text(length)

    def turn() -> None:
        with torch.inference_mode():
            model(tokens, logits_at=slice(-1, None), remember=False)

    return turn
