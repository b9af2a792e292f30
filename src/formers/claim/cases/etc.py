"""ETC: what a global input is good for, what hard masks save, and what telling sentences apart teaches."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from string import ascii_uppercase

import torch

from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.claim.sentence_task import Reader, Sentences
from formers.data.chance import generator
from formers.family import make
from formers.report.rows import Row, value_at_least, value_at_most
from formers.tasks import MaskedSentences, Prepared, prepare
from formers.tasks.sentences import SPECIAL
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater

TINY = Reader(Sentences(sentences=4, words=4, markers=2, holders=1, rows=2, evaluated=1), dim=16, hidden=16, steps=2)
FEW, BRIEFLY = 304, 60  # texts to learn from, where they are few, and steps in which they are
ROWS, EVALUATED = 16, 8000  # rows in a batch, with a hidden sentence each; tokens that are looked at in the end


@CLAIMS.case(
    "etc",
    "global tokens, hard masks and CPC, as in arXiv:2004.08483 (2 layers, dim 32, 64 sentences of 8 symbols, radius 4)",
    unit="accuracy",
)
def etc(trial: Trial) -> Iterator[Row]:
    """Finds a marker from every sentence of a text, then in each with little to learn from, then tells hidden sentences."""
    reader = TINY if trial.quick else Reader()
    yield from far_away(trial, reader)
    yield from with_little(trial, reader)
    yield from told_apart(trial)


def far_away(trial: Trial, reader: Reader) -> Iterator[Row]:
    """A few sentences hold one of 12 markers, and every sentence must tell which: with a global token each, and without.

    Without, two layers of radius 4 reach the sentences beside one's own, of which a fifth have the marker in sight.
    """
    apart = replace(reader, task=replace(reader.task, summed_up=False))
    chance = 1 / reader.task.markers
    with trial.progress("finding a marker", 2 * reader.steps) as tick:
        found = reader.accuracy(reader.learn((), tick))
        yield trial.row("a marker far away, global tokens", found, goal=value_at_least(0.95))
        found = apart.accuracy(apart.learn((), tick))
        yield trial.row(
            "a marker far away, long tokens alone", found, goal=value_at_most(0.35), note=f"chance {chance:.3f}"
        )


def with_little(trial: Trial, reader: Reader) -> Iterator[Row]:
    """Each global token tells whether its sentence holds the marker, which half of them do, after a few texts."""
    here = replace(reader.task, anywhere=False, markers=1, sentences=min(16, reader.task.sentences), texts=FEW)
    here = replace(here, holders=here.sentences // 2, rows=min(16, 4 * here.rows))
    pupil = replace(reader, task=here, steps=min(reader.steps, BRIEFLY))
    found = {}
    with trial.progress("finding with little", 2 * pupil.steps) as tick:
        for name, hard in (("no mask", ()), ("hard g2l mask", ("g2l",))):
            found[name] = pupil.accuracy(pupil.learn(hard, tick))
            yield trial.row(f"which sentences hold it, {FEW} texts, {name}", found[name])
    yield trial.row("hard g2l mask above none", found["hard g2l mask"] - found["no mask"], goal=value_at_least(0.05))


def told_apart(trial: Trial) -> Iterator[Row]:
    """Which of the batch's hidden sentences each is, after masked tokens alone, and with CPC beside them."""
    steps = 2 if trial.quick else 300
    with tempfile.TemporaryDirectory() as folder, trial.progress("hiding sentences", 2 * steps) as tick:
        texts = list(islice(invented(), 40 if trial.quick else 2000))
        text = prepare(texts, folder, tokenizer="characters", special=SPECIAL, sentences=True, held_out=0.2)
        alone, both = (_retrieval(text, steps, weight, tick) for weight in (0.0, 1.0))
    yield trial.row("hidden sentences that are found, masked tokens alone", alone, note=f"chance {1 / ROWS:.3f}")
    yield trial.row("hidden sentences that are found, CPC too", both, goal=value_at_least(5 / ROWS))
    yield trial.row("hidden sentences found by CPC, above masked tokens alone", both - alone, goal=value_at_least(0.1))


def invented() -> Iterator[str]:
    """Texts of eight sentences of eight letters; each text knows three letters of its own, and no others."""
    for number in count():
        drawn = generator(0, number)
        own = torch.randperm(len(ascii_uppercase), generator=drawn)[:3]
        letters = own[torch.randint(3, (8, 8), generator=drawn)].tolist()
        yield " ".join("".join(ascii_uppercase[i] for i in sentence) + "." for sentence in letters)


def _retrieval(text: Prepared, steps: int, weight: float, tick: Callable[[], object]) -> float:
    """The share of hidden sentences that a small ETC finds among those of a batch. weight: of the contrastive loss."""
    training = TrainSpec(
        steps, ROWS, 80, auxiliary=weight, optimizer=AdamW(3e-3), schedule=CosineDecay(min(100, steps), 0.0)
    )
    task = MaskedSentences(text, training)
    torch.manual_seed(training.seed)
    size = {"dim": 32, "depth": 2, "heads": 2, "hidden": 64, "radius": 8, "dropout": 0.0}
    model = make("etc", vocab=text.tokenizer.vocab, **size).build().train()
    update = Updater(model, task, training, training.optimizer.build(model), torch.device("cpu"))
    for step in range(1, steps + 1):
        update(step)
        tick()
    return task.evaluate(model.eval(), EVALUATED)["retrieval"]
