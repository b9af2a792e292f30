"""Early exits: tokens a second of a calibrated CALM beside those of the same model run in full, and what it risks."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import torch

from formers.bench.early import NEEDS, TINY, Shape
from formers.bench.registry import BENCHES, Rival
from formers.bench.restoring import Damaged
from formers.bench.trial import Trial
from formers.decode import Sampling, generate
from formers.decode.engine import EngineName, choose_engine
from formers.exits.calibration import with_threshold
from formers.exits.calibration.picture import save_picture
from formers.report.rows import Row, ratio_at_least, value_at_most

FULL = Shape()
ENGINES: tuple[EngineName, ...] = ("torch", "native")
FASTER = 1.5  # times, at the promised risk
TURN = 8  # texts that are written in a turn, one at a time


@BENCHES.case(
    "early-exit",
    "CALM (arXiv:2207.07061), calibrated to a risk of 0.02 with a confidence of 0.95, against the same model in full: "
    "8 layers, dim 128; texts of 64 bytes, one in twenty unreadable, are restored one at a time",
    unit="tokens/s",
    rival=Rival("the same model, no token of which leaves early"),
    needs=NEEDS,
)
def calibrated(trial: Trial) -> Iterator[Row]:
    """Trains where an earlier run left no model, calibrates on one half of the held-out texts and measures on the other."""
    shape = TINY if trial.quick else FULL
    text = shape.prepared(trial)
    model = shape.model(trial, text)
    to_calibrate, to_test = shape.held_out(text)
    found = shape.calibrated(trial, model, to_calibrate)
    save_picture(trial.keep("calibration.png"), "CALM restores damaged texts", found, shape.depth)
    trial.console.print(f"picture: {trial.keep('calibration.png')}", highlight=False)
    writings = shape.writings(model, to_test)
    threshold = found.threshold
    tested = None if threshold is None else writings.at(threshold)
    yield restored(trial, to_test, tested and tested.texts, writings.full)
    if threshold is None or tested is None:
        yield trial.row("tokens written", None, goal=ratio_at_least(FASTER), note="no threshold keeps the promise")
        return
    early, full = with_threshold(model, threshold), with_threshold(model, None)
    prompts = to_test.given.tolist()
    note = f"threshold {threshold:g}, {tested.mean_exit:.2f} of {shape.depth} blocks in the mean"
    for engine in ENGINES:
        beside = partial(writer, full, prompts, shape, engine)
        duel = trial.duel(writer(early, prompts, shape, engine), beside)
        rates = duel.rate(TURN * shape.width)
        yield trial.row(f"tokens written by {engine}", *rates, goal=ratio_at_least(FASTER), note=note)
    risk = sum(tested.losses) / len(tested.losses)
    yield trial.row(
        f"mean loss of {len(tested.losses)} texts that were not calibrated on",
        risk,
        unit="1 - F1",
        better="lower",
        rival=None,
        goal=value_at_most(shape.promise.risk),
        note=f"of the full model's text; {found.chosen.risk:.4f} of those calibrated on" if found.chosen else "",
    )


def restored(trial: Trial, texts: Damaged, early: Sequence[list[int]] | None, full: list[list[int]]) -> Row:
    """How good both are, so that nobody takes a model that only copies for one that restores; early: None where none is."""
    truth = texts.whole[texts.unreadable]
    shares = [
        None if written is None else (torch.tensor(written)[texts.unreadable] == truth).double().mean().item()
        for written in (early, full)
    ]
    commonest = truth.bincount().max().item() / len(truth)
    exact = (torch.tensor(full) == texts.whole).all(1).double().mean().item()
    note = f"{commonest:.3f} by the commonest byte for each; the full model writes {exact:.3f} of the texts without a fault"
    return trial.row("unreadable bytes restored", *shares, unit="share", better="higher", note=note)


def writer(model: Any, prompts: list[list[int]], shape: Shape, engine: EngineName) -> Callable[[], object]:
    """Writes behind some prompts, one after another; the next turn goes on with the next prompts."""
    choice, left = choose_engine(model, engine).packed(), cycle(prompts)
    how: dict[str, Any] = {"max_new": shape.width, "sampling": Sampling(temperature=0.0), "engine": choice}

    def turn() -> None:
        for _ in range(TURN):
            generate(model, [next(left)], **how)

    return turn
