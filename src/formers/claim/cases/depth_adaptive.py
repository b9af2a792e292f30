"""Depth-Adaptive Transformer: a head that has learned from an oracle where to leave goes as deep as the question is hard."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention import Attention
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.claim.pointer_task import LAST, TINY, Chaser, by_hops
from formers.exits import Exits
from formers.exits.calibration import with_threshold
from formers.exits.halting import CorrectnessOracle, Found, GeometricHalting
from formers.exits.halting.held_out import Question, Scores, at_every_exit, scores, searched
from formers.feedforward import MLP
from formers.position import Learned
from formers.report.rows import Row, value_at_least, value_at_most

CHASER = Chaser(steps=3500)
DEPTH, HEADS = 6, 4
PRICE = 0.02
QUESTIONS = 3000


@CLAIMS.case(
    "depth_adaptive",
    f"exits (arXiv:1910.10073) behind {DEPTH} turns of one block, dim 64, follow pointers over 1 to 4 hops; a geometric head "
    f"learns from the correctness oracle at a price of {PRICE:g}",
    unit="share",
    rival=Rival("the same model in full"),
)
def depth_adaptive(trial: Trial) -> Iterator[Row]:
    """Learns exits and head together, aligned and with even weights, and asks questions that no training drew."""
    chaser = TINY if trial.quick else CHASER
    (model,) = chaser.learn_each(trial, {"six exits": (exits(), Learned(chaser.task.length))})
    asked = questions(chaser, 40 if trial.quick else QUESTIONS)
    yield from each_exit(trial, model, asked)
    yield from when_halting(trial, model, asked)
    yield from by_search(trial, model, asked, questions(chaser, 40 if trial.quick else QUESTIONS, skip=100))


class Asked(NamedTuple):
    """Questions, and how many hops each takes, (N,)."""

    question: Question
    hops: Tensor


def exits() -> tuple[Any, ...]:
    """One block, after each turn of which the head says whether to leave."""
    block = Block((Attention(HEADS), MLP(256)))
    rule = GeometricHalting(CorrectnessOracle(PRICE))
    return (Exits(stack(block, times=DEPTH), rule, weights="even", tied=True),)


def questions(chaser: Chaser, count: int, skip: int = 0) -> Asked:
    """Questions of which no training draws any; skip: batches that are left to others."""
    batches = [replace(chaser.task, rows=100).unseen(skip + number) for number in range(-(-count // 100))]
    joined = {name: torch.cat([batch[name] for batch in batches])[:count] for name in ("inputs", "targets", "hops")}
    return Asked(Question((joined["inputs"],), joined["targets"], LAST), joined["hops"])


def each_exit(trial: Trial, model: nn.Module, asked: Asked) -> Iterator[Row]:
    """What every exit says, all tokens running past all of them."""
    _, right = at_every_exit(model, asked.question)
    shares = right.double().mean(0).tolist()
    note = f"by exits: {', '.join(f'{share:.3f}' for share in shares)}"
    yield trial.row("right answers at the last exit", shares[-1], rival=None, goal=value_at_least(0.95), note=note)
    least = min(after - before for before, after in pairwise(shares))
    yield trial.row("the least rise from one exit to the next", least, rival=None, goal=value_at_least(-0.01))


def when_halting(trial: Trial, model: nn.Module, asked: Asked) -> Iterator[Row]:
    """Right answers and depth where the head decides."""
    early, full = (scores(each, [asked.question]) for each in (model, with_threshold(model, None)))
    yield from beside_full(trial, "by the head", early, full)
    with torch.inference_mode():
        leaves = model(*asked.question.inputs, remember=False).records["leaves"][-1][:, -1].double()
    means = list(by_hops(leaves, asked.hops, int(asked.hops.max())).values())
    note = f"mean exit after 1, 2, ... hops: {', '.join(f'{mean:.2f}' for mean in means)}"
    blocks: dict[str, Any] = {"unit": "blocks", "rival": None, "goal": value_at_least(0.0), "note": note}
    yield trial.row("the least rise from one hop to the next", min(b - a for a, b in pairwise(means)), **blocks)


def by_search(trial: Trial, model: nn.Module, asked: Asked, held_out: Asked) -> Iterator[Row]:
    """The same with thresholds that were searched on other questions."""
    found: Found = searched(model, [held_out.question], PRICE)
    early, full = (scores(with_threshold(model, each), [asked.question]) for each in (found.thresholds, None))
    note = f"thresholds {', '.join(f'{threshold:.2g}' for threshold in found.thresholds)}"
    yield from beside_full(trial, "by searched thresholds", early, full, note)


def beside_full(trial: Trial, how: str, early: Scores, full: Scores, note: str = "") -> Iterator[Row]:
    """How many right answers leaving costs, and how many blocks it saves."""
    lost: dict[str, Any] = {"better": "lower", "rival": None, "goal": value_at_most(0.01), "note": note}
    yield trial.row(f"right answers lost {how}", full.accuracy - early.accuracy, **lost)
    depth: dict[str, Any] = {"unit": "blocks", "better": "lower", "goal": value_at_most(0.6 * DEPTH)}
    yield trial.row(f"mean exit of the last token {how}", early.exit, full.exit, **depth)
