"""Longformer: what windows alone do not find, windows and one global token do, at a small share of the pairs."""

from collections.abc import Iterator

import torch

from formers.attention import Attention, LongformerAttention, SeenByAll, SeesAll, Window
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.marker_task import TINY, Finder, Retrieval, marks
from formers.places import keys, queries
from formers.report.rows import Row, value_at_least, value_at_most
from formers.tokens import place

WINDOW = 5  # 4 tokens on either side
GUESSING = 0.15  # at most: the share that guesses, and noise


@CLAIMS.case(
    "longformer",
    "windows of 4 tokens to either side and one global token (arXiv:2004.05150) look for 1 of 12 markers among 128 tokens, "
    "2 layers, dim 48",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def longformer(trial: Trial) -> Iterator[Row]:
    """Learns with windows alone, with windows and the first token global, and with full attention."""
    finder = TINY if trial.quick else Finder()
    kinds = attentions()
    goals = (value_at_most(GUESSING), value_at_least(0.95), value_at_least(0.95))
    models = finder.learn_each(trial, kinds)
    for name, model, goal in zip(kinds, models, goals, strict=True):
        better = "lower" if goal is goals[0] else "higher"
        yield trial.row(name, finder.accuracy(model), finder.task.chance, goal=goal, better=better)
    name = "pairs that meet with one global token"
    yield trial.row(name, share_met(finder.task), unit="of all", better="lower", rival=None)


def share_met(task: Retrieval) -> float:
    """The share of all pairs of a text that windows and its global token let meet."""
    batch = task.batch(0)
    at = place(batch["inputs"], 0, None, marks(batch))
    seen = (Window(WINDOW) | SeenByAll() | SeesAll()).visible(queries(at), keys(at), torch.tensor(0))
    return float(seen.double().mean())


def attentions() -> dict[str, Layer]:
    """Four heads each; the task marks the first token as global, which the first and the last do not read."""
    return {
        "windows": Attention(4, pattern=Window(WINDOW)),
        "windows and one global token": LongformerAttention(4, Window(WINDOW)),
        "full attention": Attention(4),
    }
