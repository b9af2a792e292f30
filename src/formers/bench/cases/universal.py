"""A Universal Transformer that was taught to halt beside the same model that was not: applications of the block, and time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.claim.pondering import SMALLEST, STEPS, Ponderer
from formers.depth import ACT
from formers.report.rows import Row, ratio_at_least

LEFT_OUT = 0.3  # of the applications of the block
TEXTS = 16  # in one turn


@BENCHES.case(
    "early-exit",
    "Universal Transformer (arXiv:1807.03819) taught to halt, halted tokens copied: pointers of 1 to 4 hops, up to 6 steps, "
    "dim 64",
    unit="ms",
    better="lower",
    rival=Rival("the same model, taught as long without halting, all tokens 6 steps"),
)
def halting(trial: Trial) -> Iterator[Row]:
    """Learns with fixed steps, then with halting; texts are read one by one, whole and token by token."""
    ponderer = SMALLEST if trial.quick else Ponderer()
    task = ponderer.chaser.task
    with trial.progress("", ponderer.chaser.steps + 2 * ponderer.lessons) as tick:
        learned = ponderer.whole(tick)
        halts, whole = (ponderer.taught(act, learned, tick) for act in (ACT(bias=0.0, halted="copied"), None))
    steps = ponderer.taken(halts)[0].mean().item()
    goal = ratio_at_least(1 / (1 - LEFT_OUT))
    yield trial.row("applications of the block to a token", steps, float(STEPS), unit="times", goal=goal)
    scores = [task.evaluate(model)["accuracy"] for model in (halts, whole)]
    yield trial.row("accuracy", *scores, unit="share", better="higher", goal=ratio_at_least(0.99))
    texts = task.unseen(0)["inputs"][:TEXTS]
    for name, cut in {"a text at once": task.length, "a text token by token": 1}.items():
        duel = trial.duel(reader(halts, texts, cut), lambda cut=cut: reader(whole, texts, cut))  # type: ignore[misc]
        yield trial.row(name, *duel.milliseconds(len(texts)))


def reader(model: nn.Module, texts: Tensor, cut: int) -> Callable[[], None]:
    """Reads texts (N, T) one by one, so many tokens at a time."""

    @torch.inference_mode()
    def turn() -> None:
        for text in texts.split(1):
            state = None
            for piece in text.split(cut, 1):
                state = model(piece, state).state

    return turn
