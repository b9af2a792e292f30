"""Training speed: whole updates of a GPT-2, ours against transformers', under the same optimiser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from formers.bench.gpt2 import HUGGING_FACE, SHAPES, TINY, Shape, twins
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.data.tokenizer import ByteTokenizer
from formers.data.tokens import write_tokens
from formers.report.rows import Row, ratio_at_least
from formers.tasks import Causal, Prepared
from formers.train import TrainSpec
from formers.train.update import Updater

BATCH = 8
CLIP = 1.0


@BENCHES.case(
    "train",
    "GPT-2 shape (dim 256, depth 6, 8 heads), 8 rows of 512 tokens, fp32, without dropout",
    unit="tokens/s",
    rival=HUGGING_FACE,
    goal=ratio_at_least(1.0),
)
def gpt2_train(trial: Trial) -> Iterator[Row]:
    """Tokens per second of updates: batch, forward, backward, clipping, AdamW."""
    for shape in TINY if trial.quick else SHAPES:
        with TemporaryDirectory() as folder:
            yield train(trial, shape, Path(folder))


def train(trial: Trial, shape: Shape, folder: Path) -> Row:
    """One shape: ours by our own updater on a token file, the rival by a plain loop on one batch."""
    spec = TrainSpec(steps=10_000, batch=BATCH, length=shape.length, clip=CLIP)
    model, rival = twins(shape)
    model.train()
    optimizer = spec.optimizer.build(model)
    update = Updater(model, Causal(random_text(shape, folder), spec), spec, optimizer, torch.device("cpu"))
    steps = iter(range(1, spec.steps + 1))

    def make_rival() -> Callable[[], None]:
        rival.train()
        its_optimizer = spec.optimizer.build(rival)
        tokens = torch.randint(shape.vocab, (BATCH, shape.length), generator=torch.Generator().manual_seed(0))

        def run() -> None:
            rival(input_ids=tokens, labels=tokens).loss.backward()
            clip_grad_norm_(rival.parameters(), CLIP)
            its_optimizer.step()
            its_optimizer.zero_grad()

        return run

    duel = trial.duel(lambda: update(next(steps)), make_rival)
    return trial.row(f"training, vocabulary {shape.vocab:,}", *duel.rate(BATCH * shape.length))


def random_text(shape: Shape, folder: Path) -> Prepared:
    """Random ids as prepared text; nothing is ever read as text, so the tokenizer is any."""
    ids = np.random.default_rng(0).integers(shape.vocab, size=64 * BATCH * shape.length)
    tokens = write_tokens(folder / "random.tokens", [ids], shape.vocab)
    return Prepared(ByteTokenizer(), tokens, tokens, {})
