"""CALM: a question of one hop leaves early, one of four goes deep, and the calibrated risk is kept as promised."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.attention import Attention
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.claim.pointer_task import LAST, TINY, Chaser, by_hops
from formers.exits import Exits, SoftmaxResponse
from formers.exits.calibration import Calibration, Found, Promise, walk_down, with_threshold
from formers.exits.calibration.learned import with_learned_confidence
from formers.feedforward import MLP
from formers.position import Learned
from formers.report.rows import Row, value_at_least, value_at_most

CHASER = Chaser(steps=3500)
DEPTH, HEADS = 6, 4
PROMISE = Promise(risk=0.05, confidence=0.95)
CALIBRATED, TESTED, SPLITS = 1000, 3000, 100
GRID = tuple(1 - step / 100 for step in range(101))
TAUGHT = 300  # steps of the classifier, the model frozen


@dataclass(frozen=True)
class Answered:
    """What early exits did to N questions at each of G thresholds: whether they changed the full model's answer, (G, N),
    and how many blocks the last token ran through, (G, N)."""

    changed: Tensor
    exits: Tensor

    def calibrated(self, questions: Tensor) -> Calibration:
        """By some of the questions, the thresholds from the highest down."""
        rows = {threshold: row for row, threshold in enumerate(GRID)}

        def find(threshold: float) -> Found:
            row = rows[threshold]
            losses = self.changed[row, questions]
            return Found(losses.tolist(), float(self.exits[row, questions].mean()))

        return walk_down(find, GRID, PROMISE)

    def risk(self, threshold: float | None, questions: Tensor) -> float:
        """The share of those questions whose answer is changed; 0 where no token may leave."""
        return 0.0 if threshold is None else float(self.changed[GRID.index(threshold), questions].mean())


@CLAIMS.case(
    "calm",
    f"early exits (arXiv:2207.07061) follow pointers over 1 to 4 hops, {DEPTH} times one block, dim 64; risk 0.05 with a "
    "confidence of 0.95",
    unit="share",
    rival=Rival("the same model in full"),
)
def calm(trial: Trial) -> Iterator[Row]:
    """Trains at all exits, calibrates on 1,000 questions and tests on 3,000 others, and again for 100 other splits."""
    chaser = TINY if trial.quick else CHASER
    (model,) = chaser.learn_each(trial, {"six exits": (exits(), Learned(chaser.task.length))})
    inputs, truth, hops = questions(chaser, PROMISE.needed + 40 if trial.quick else CALIBRATED + TESTED)
    count = PROMISE.needed + 10 if trial.quick else CALIBRATED
    full = answers(model, inputs)[0]
    found = answered(model, inputs, full)
    ours, others = torch.arange(count), torch.arange(count, len(inputs))
    chosen = found.calibrated(ours)
    yield trial.row("right answers in full", right(full, truth), goal=value_at_least(0.95), rival=None)
    threshold = chosen.threshold
    note = "nobody leaves: no threshold could be shown" if threshold is None else f"threshold {threshold:g}"
    named = f"answers that {len(others):,} questions change"
    yield trial.row(
        named, found.risk(threshold, others), rival=None, better="lower", goal=value_at_most(PROMISE.risk), note=note
    )
    yield from mean_exits(trial, model, inputs[others], hops[others], threshold, truth[others])
    yield violations(trial, found, count)
    yield learned_exits(trial, chaser, model, inputs, full, count)


def exits() -> tuple[Any, ...]:
    """One block, after each turn of which a token may leave."""
    block = Block((Attention(HEADS), MLP(256)))
    return (Exits(stack(block, times=DEPTH), SoftmaxResponse(), tied=True),)


def questions(chaser: Chaser, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """inputs (N, T), answers (N,) and hops (N,), of which no training draws any."""
    batches = [replace(chaser.task, rows=100).unseen(number) for number in range(-(-count // 100))]
    joined = {name: torch.cat([batch[name] for batch in batches])[:count] for name in ("inputs", "targets", "hops")}
    return joined["inputs"], joined["targets"][:, 0], joined["hops"]


def answers(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest answer to each question, and how many blocks its last token ran through."""
    with torch.inference_mode():
        out = model(inputs, logits_at=LAST, remember=False)
    return out.logits[:, 0].argmax(-1), out.records["leaves"][-1][:, -1].double()


def answered(model: nn.Module, inputs: Tensor, full: Tensor) -> Answered:
    """The same at every threshold of the grid."""
    each = [answers(with_threshold(model, threshold), inputs) for threshold in GRID]
    return Answered(
        torch.stack([(told != full).double() for told, _ in each]), torch.stack([exits for _, exits in each])
    )


def right(told: Tensor, truth: Tensor) -> float:
    return float((told == truth).double().mean())


def mean_exits(
    trial: Trial, model: nn.Module, inputs: Tensor, hops: Tensor, threshold: float | None, truth: Tensor
) -> Iterator[Row]:
    """How deep the last token goes, and how many answers are right."""
    told, exits = answers(with_threshold(model, threshold), inputs)
    by_hop = ", ".join(f"{mean:.2f}" for mean in by_hops(exits, hops, int(hops.max())).values())
    note = f"after 1, 2, ... hops: {by_hop}"
    depth: dict[str, Any] = {"unit": "blocks", "better": "lower", "goal": value_at_most(DEPTH - 0.01), "note": note}
    yield trial.row("mean exit of the last token", float(exits.mean()), float(DEPTH), **depth)
    full = answers(model, inputs)[0]
    yield trial.row("right answers with early exits", right(told, truth), right(full, truth))


def violations(trial: Trial, found: Answered, count: int) -> Row:
    """How often a calibration on other questions would have broken the promise on the rest."""
    splits, broken = 5 if trial.quick else SPLITS, 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(splits):
        drawn = torch.randperm(found.changed.shape[1], generator=generator)
        threshold = found.calibrated(drawn[:count]).threshold
        broken += found.risk(threshold, drawn[count:]) > PROMISE.risk
    goal, better = value_at_most(PROMISE.epsilon), "lower"
    return trial.row(
        f"of {splits} calibrations, those that break it", broken / splits, rival=None, better=better, goal=goal
    )


def learned_exits(trial: Trial, chaser: Chaser, model: nn.Module, inputs: Tensor, full: Tensor, count: int) -> Row:
    """The learned classifier in place of the softmax response, the model frozen."""

    def run(taught: Any, step: int) -> Any:
        return taught(chaser.task.batch(chaser.steps + step)["inputs"], logits_at=LAST, remember=False)

    steps = 2 if trial.quick else TAUGHT
    with trial.progress("the classifier", steps) as tick:
        taught = with_learned_confidence(model, run, steps=steps, tick=tick)
    found = answered(taught, inputs, full)
    threshold, others = found.calibrated(torch.arange(count)).threshold, torch.arange(count, len(inputs))
    exits = DEPTH if threshold is None else float(found.exits[GRID.index(threshold), others].mean())
    note = f"it changes {found.risk(threshold, others):.3f} of the answers"
    depth: dict[str, Any] = {"unit": "blocks", "better": "lower", "note": note}
    return trial.row("mean exit by the learned classifier", exits, float(DEPTH), **depth)
