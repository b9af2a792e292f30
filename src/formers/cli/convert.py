"""`formers convert`: another model made of a trained one, taught by it layer by layer, then trained as a whole."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from formers.cli.eval import run_folder
from formers.cli.material import prepare_material, require_vocabulary
from formers.cli.model import read_spec, require_buildable
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.cli.train import INTERRUPTED
from formers.cli.training import changed, declare_training, given_training, new_training
from formers.convert import Sparsity, distil, inherit, missed, pairs_of, sparse_counterpart
from formers.data.tokenizer import Tokenizer
from formers.errors import CheckpointError, ConfigError
from formers.model import parameter_count
from formers.tasks import Causal, Prepared, open_prepared
from formers.train import Run, TrainSpec, load_model, load_run_tokenizer, train

EXAMPLES = """\
  formers convert runs/notes --to sparse --out runs/sparse-notes --steps 2000
  formers convert runs/gpt2 --to sparse --block 64 --rank 16 --modules 12 --data notes/ --out runs/sparse --steps 5000
"""


def declare(parser: Parser) -> None:
    """From which run, to what, and how long each part of the teaching takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained or imported decoder")
    told = "sparse: feed-forwards with one active unit in each block, and sparse projections (arXiv:2111.12763)"
    parser.add_argument("--to", required=True, choices=["sparse"], help=told)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder to make")
    parser.add_argument("--data", nargs="+", type=Path, metavar="PATH", help="text to learn from (that of the run)")
    told = "units of a feed-forward of which one is active; 0 leaves them dense (64)"
    parser.add_argument("--block", type=int, default=64, metavar="N", help=told)
    parser.add_argument("--rank", type=int, default=16, metavar="N", help="of what chooses the active units (16)")
    told = "modules of queries, keys and values; 0 leaves attention dense (8)"
    parser.add_argument("--modules", type=int, default=8, metavar="N", help=told)
    told = "steps in which each layer learns from the one that it replaces (300)"
    parser.add_argument("--distil", type=int, default=300, metavar="N", help=told)
    declare_training(parser)


def run(options: argparse.Namespace) -> int:
    """Convert, teach, train, and tell the loss at each stage."""
    _require_free(options)
    old: Any = load_model(options.run)
    spec = sparse_counterpart(old.spec, Sparsity(options.block or None, options.rank, options.modules or None))
    require_buildable(spec)
    training = _training(options, spec)
    tokenizer = load_run_tokenizer(options.run)
    require_vocabulary(spec, tokenizer)
    prepared = _material(options, spec, tokenizer)
    torch.manual_seed(training.seed)
    new = spec.build()
    task = Causal(prepared, training)
    stages = {"the dense model": _evaluate(old, task)}
    _teach(old, new, task, options.distil, training)
    stages["sparse layers, each taught by itself"] = _evaluate(new, task)
    outcome = train(new, task, training, options.out, tokenizer=prepared.tokenizer)
    if not outcome.finished:
        return INTERRUPTED
    stages["sparse layers, trained together"] = outcome.held_out
    _tell(stages, parameter_count(old), parameter_count(new))
    print(f"the run is in {options.out}, its loss in {options.out / 'loss.png'}")
    return 0


def _require_free(options: argparse.Namespace) -> None:
    if Run(options.out).started:
        raise CheckpointError(f"{options.out} holds a run already; name another --out")
    if options.distil < 1:
        raise ConfigError(f"layers learn nothing in {options.distil} steps; give --distil 300")


def _training(options: argparse.Namespace, spec: Any) -> TrainSpec:
    """As the run was trained, but for what is given."""
    given, file = given_training(options), run_folder(options.run) / "train.json"
    if not file.is_file():
        return new_training(given, spec.max_length)
    if "steps" not in given:
        raise ConfigError("how long to train the whole is not said; give --steps 2000, say")
    return changed(read_spec(str(file)), given)


def _material(options: argparse.Namespace, spec: Any, tokenizer: Tokenizer) -> Prepared:
    """The run's own data, copied, or the data that was given, in the run's tokens."""
    folder, own = options.out / "data", run_folder(options.run) / "data"
    if options.data:
        return prepare_material(spec, options.data, folder, str(run_folder(options.run)))  # type: ignore[return-value]
    if not own.is_dir():
        raise ConfigError(f"{options.run} has no data of its own; name text with --data PATH")
    if not folder.is_dir():
        shutil.copytree(own, folder)
    return open_prepared(folder)


def _teach(old: Any, new: Any, task: Causal, steps: int, training: TrainSpec) -> None:
    pairs = pairs_of(old, new)
    inherit(old, new, pairs)
    new.eval()

    def batch(step: int) -> torch.Tensor:
        return task.batch(step)["inputs"]

    with ticking(f"teaching {len(pairs)} layers") as tick:
        distil(old, pairs, batch, steps=steps, tick=tick)
    print("of what each dense layer put out, its sparse one misses:")
    for pair, share in zip(pairs, missed(old, pairs, batch(steps + 1)), strict=True):
        print(f"  {pair.name:<32} {type(pair.new.spec).__name__:<12} {share:.1%}")


def _evaluate(model: Any, task: Causal) -> dict[str, float]:
    model.eval()
    with ticking("evaluating") as tick:
        return task.evaluate(model, tick=tick)


def _tell(stages: dict[str, dict[str, float]], dense: int, sparse: int) -> None:
    terminal = Terminal()
    name = "bits_per_byte" if all("bits_per_byte" in found for found in stages.values()) else "nats"
    terminal.print(f"\n{dense:,} parameters became {sparse:,}; {name.replace('_', ' ')} of the held-out text:")
    for stage, found in stages.items():
        terminal.print(f"  {stage:<40} {found[name]:.4f}")
