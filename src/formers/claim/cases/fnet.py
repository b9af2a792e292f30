"""FNet: how much of attention's accuracy a Fourier transform keeps, and what it saves."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from formers.attention import Attention
from formers.bench.race import race
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.package_task import TINY, Librarian
from formers.fourier import Fourier
from formers.report.rows import Row, ratio_at_least, value_at_least

HEADS = 4
ATTENTION, FOURIER, NOTHING = "attention", "Fourier transform", "nothing that mixes tokens"


@CLAIMS.case(
    "fnet",
    "the package of a window of 128 characters of the standard library, by Fourier mixing (arXiv:2105.03824), "
    "2 layers, dim 96",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def fnet(trial: Trial) -> Iterator[Row]:
    """Learns with attention, with the transform and with neither; then a step of the first two, in turns."""
    librarian = TINY if trial.quick else Librarian()
    kinds = {ATTENTION: (Attention(HEADS),), FOURIER: (Fourier(),), NOTHING: ()}
    models = dict(zip(kinds, librarian.learn_each(trial, kinds), strict=True))
    found = {name: librarian.accuracy(model) for name, model in models.items()}
    for name, accuracy in found.items():
        yield trial.row(name, accuracy, librarian.task.chance)
    both = found[FOURIER], found[ATTENTION]
    yield trial.row("the transform beside attention", *both, rival=ATTENTION, goal=ratio_at_least(0.92))
    more = found[FOURIER] - found[NOTHING]
    yield trial.row("the transform above nothing", more, rival=None, goal=value_at_least(0.1))
    turns = {name: step(librarian, models[name]) for name in (ATTENTION, FOURIER)}
    seconds = race(turns, warmup=1 if trial.quick else 3, rounds=1 if trial.quick else 15)
    times: dict[str, Any] = {"unit": "ms", "better": "lower", "rival": ATTENTION, "goal": ratio_at_least(1.0)}
    yield trial.row("a step, forward and backward", 1e3 * seconds[FOURIER], 1e3 * seconds[ATTENTION], **times)


def step(librarian: Librarian, model: nn.Module) -> Callable[[], None]:
    """A forward and backward pass over one batch."""
    model.train()
    batch = librarian.task.batch(0)

    def turn() -> None:
        librarian.task.loss(model, batch).nats.backward()

    return turn
