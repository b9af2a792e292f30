"""Transformer-XL: a memory of the segment before lowers the loss, and a longer one at evaluation does no harm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from formers.attention import Causal, Segments
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.carried import rebuilt, with_memory
from formers.data.source import Beginning, standard_library
from formers.family import make
from formers.report.rows import Row, value_at_least, value_at_most
from formers.spec import assign
from formers.tasks import CausalStreams, Prepared, evaluate_text, prepare
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.update import Updater

WITHOUT = Rival("the same model trained without a memory")
GAIN, HARM = 0.1, 0.02  # bits per character


@dataclass(frozen=True)
class Setting:
    """The models, what they learn from, and how long. characters: of the text; held: of what it holds out, read at the end."""

    segment: int = 32
    longer: tuple[int, ...] = (64, 128)
    depth: int = 3
    dim: int = 128
    heads: int = 4
    rows: int = 32
    steps: int = 2200
    rate: float = 2e-3
    characters: int = 4_000_000
    held: int = 100_000


TINY = Setting(segment=8, longer=(16, 24), depth=1, dim=16, heads=2, rows=2, steps=3, characters=30_000, held=500)


@CLAIMS.case(
    "transformer_xl",
    "segments of 32 characters of Python's library, with and without a memory of 32 (arXiv:1901.02860), "
    "3 layers, dim 128, 32 streams, 2,200 steps",
    unit="bits/character",
    better="lower",
    rival=WITHOUT,
)
def transformer_xl(trial: Trial) -> Iterator[Row]:
    """Learns both in turn, and evaluates the one with a memory under shorter and longer ones."""
    setting = TINY if trial.quick else Setting()
    with TemporaryDirectory() as folder:
        text = prepare(Beginning(standard_library(), setting.characters), folder)
        with trial.progress("", 2 * setting.steps) as tick:
            models = []
            for memory in (0, setting.segment):
                tick(0, f"memory of {memory}")
                models.append(learn(setting, text, memory, tick))
        without, trained = models
        bits = {0: told(setting, text, without), setting.segment: told(setting, text, trained)}
        for memory in setting.longer:
            bits[memory] = told(setting, text, with_memory(trained, memory))
        forgetting = told(setting, text, forgetful(trained, setting.segment))
    plain, own = bits.pop(0), bits.pop(setting.segment)
    yield trial.row(f"memory of {setting.segment}", own, plain)
    yield trial.row("what the memory gains", plain - own, better="higher", rival=None, goal=value_at_least(GAIN))
    for memory, found in bits.items():
        name = f"memory of {memory} at evaluation, over that of {setting.segment}"
        yield trial.row(name, found - own, rival=None, goal=value_at_most(HARM))
    note = "trained with a memory, evaluated without"
    yield trial.row("no memory at evaluation", forgetting, plain, note=note)


def learn(setting: Setting, text: Prepared, memory: int, tick: Callable[[], object]) -> nn.Module:
    """A model that was trained on streams with a memory of that length."""
    training = TrainSpec(
        setting.steps, setting.rows, setting.segment, optimizer=AdamW(setting.rate), schedule=CosineDecay(100, 0.0)
    )
    torch.manual_seed(training.seed)
    sizes = {"dim": setting.dim, "depth": setting.depth, "heads": setting.heads, "hidden": 4 * setting.dim}
    spec = make(
        "transformer_xl", vocab=text.tokenizer.vocab, segment=setting.segment, memory=memory, dropout=0.0, **sizes
    )
    model: nn.Module = spec.build().train()
    task, optimizer = CausalStreams(text, training), training.optimizer.build(model)
    update = Updater(model, task, training, optimizer, torch.device("cpu"))
    for step in range(1, setting.steps + 1):
        update(step)
        tick()
    return model.eval()


def forgetful(model: Any, segment: int) -> nn.Module:
    """The same parameters without a memory."""
    pattern = Causal() & Segments(segment, 0)
    spec = assign(model.spec, f"blocks[*].sublayers[0].pattern={pattern!r}")
    forgets: nn.Module = rebuilt(model, spec)
    return forgets


def told(setting: Setting, text: Prepared, model: nn.Module) -> float:
    """Bits per character of held-out text, in as many streams as in training."""
    found = evaluate_text(model, text.held_out, text.tokenizer, setting.segment, setting.rows, setting.held)
    return found["bits_per_byte"]
