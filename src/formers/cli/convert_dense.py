"""`formers convert --to dense`: a model with experts is distilled into one without."""

import argparse
from typing import Any

import torch

from formers.cli.after_run import material_after, training_after
from formers.cli.material import require_vocabulary, task_of
from formers.cli.model import require_buildable
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.teacher import note_teacher, taught
from formers.cli.terminal import Terminal
from formers.cli.training import given_training
from formers.convert import dense_counterpart, inherit, pairs_of
from formers.errors import CheckpointError, ConfigError
from formers.model import parameter_count
from formers.tasks.distill import SOFT
from formers.train import Run, load_model, load_run_tokenizer, train

OF_DENSE: dict[str, Any] = {"data": None, "soft": SOFT}
INTERRUPTED = 130


def declare_dense(parser: Parser) -> None:
    """How much the model with experts has to say."""
    dense = parser.add_argument_group("for --to dense (arXiv:2101.03961, section 4.2)")
    told = f"share of the loss that the model with experts tells; the rest is the text's ({SOFT})"
    dense.add_argument("--soft", type=float, metavar="SHARE", help=told, default=argparse.SUPPRESS)


def make_dense(options: argparse.Namespace, given: set[str]) -> int:
    """Begin with the weights that are no expert's, learn from the text and from the old model, and tell what is left."""
    if hasattr(options, "assignments"):
        raise ConfigError("--set is for long texts; the dense model is told by the one with experts")
    if unknown := sorted(given - OF_DENSE.keys() - given_training(options).keys()):
        raise ConfigError(
            f"--{unknown[0]} is not for --to dense, which is told by --data, --soft and the options of training"
        )
    options = argparse.Namespace(**{**OF_DENSE, **vars(options)})
    if Run(options.out).started:
        raise CheckpointError(f"{options.out} holds a run already; name another --out")
    old: Any = load_model(options.run)
    spec = dense_counterpart(old.spec)
    require_buildable(spec)
    training = training_after(options.run, given_training(options), spec.max_length)
    tokenizer = load_run_tokenizer(options.run)
    require_vocabulary(spec, tokenizer)
    material: Any = material_after(options.run, spec, options.data, options.out / "data")
    note_teacher(options.out, options.run, options.soft)
    torch.manual_seed(training.seed)
    new = spec.build()
    inherit(old, new, pairs_of(old, new))
    plain = task_of(spec, material, training)
    with ticking("evaluating") as tick:
        stages = {"with experts": plain.evaluate(old, tick=tick)}
    task = taught(plain, options.out)
    outcome = train(new, task, training, options.out, tokenizer=tokenizer, pretrained=True)
    if not outcome.finished:
        return INTERRUPTED
    stages["dense"] = outcome.held_out
    _tell(stages, parameter_count(old), parameter_count(new))
    print(f"the run is in {options.out}, its loss in {options.out / 'loss.png'}")
    return 0


def _tell(stages: dict[str, dict[str, float]], before: int, after: int) -> None:
    terminal = Terminal()
    name = "bits_per_byte" if all("bits_per_byte" in found for found in stages.values()) else "nats"
    terminal.print(f"\n{before:,} parameters became {after:,}; {name.replace('_', ' ')} of the held-out text:")
    for stage, found in stages.items():
        terminal.print(f"  {stage:<40} {found[name]:.4f}")
