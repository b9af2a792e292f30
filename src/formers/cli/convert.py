"""`formers convert`: another model made of a trained one: for long texts, with a memory, or sparse or dense and taught by it."""

import argparse
from pathlib import Path
from typing import Any

import torch

from formers.cli.after_run import material_after, training_after
from formers.cli.convert_dense import declare_dense, make_dense
from formers.cli.convert_long import make_long
from formers.cli.convert_memory import OF_MEMORY, declare_memory, make_memorizing
from formers.cli.material import require_vocabulary
from formers.cli.model import require_buildable
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.cli.train import INTERRUPTED
from formers.cli.training import declare_training, given_training
from formers.convert import Sparsity, distil, inherit, missed, pairs_of, sparse_counterpart
from formers.convert.long import LONG
from formers.errors import CheckpointError, ConfigError
from formers.model import parameter_count
from formers.tasks import Causal
from formers.train import Run, TrainSpec, load_model, load_run_tokenizer, train

EXAMPLES = """\
  formers convert ~/models/roberta-base --to longformer --length 4096 --out runs/longformer
  formers convert runs/bert --to big_bird --length 4096 --out runs/big-bird
  formers convert runs/llama --to memorizing --layer 9 --memory 65536 --out runs/memorizing
  formers convert runs/notes --to sparse --out runs/sparse-notes --steps 2000
  formers convert runs/gpt2 --to sparse --block 64 --rank 16 --modules 12 --data notes/ --out runs/sparse --steps 5000
  formers convert runs/switch --to dense --out runs/small --steps 5000
"""


OF_SPARSE: dict[str, Any] = {"data": None, "block": 64, "rank": 16, "modules": 8, "distil": 300}
UNSAID: dict[str, Any] = {"default": argparse.SUPPRESS}  # options that were not given are not in the namespace


def declare(parser: Parser) -> None:
    """From which run, to what, and how long each part of the teaching takes."""
    told = "the folder of a trained or imported model; for long texts also one in Hugging Face's format"
    parser.add_argument("run", type=Path, metavar="DIR", help=told)
    told = (
        f"{', '.join(LONG)}: for texts of --length tokens; memorizing: layers with a memory; dense: no experts; "
        "sparse: feed-forwards with few active units, and sparse projections"
    )
    kinds = [*LONG, "memorizing", "dense", "sparse"]
    parser.add_argument("--to", required=True, choices=kinds, help=told)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder to make")
    told = "change a field that no weight depends on, such as blocks[*].sublayers[0].pattern; not of sparse or dense"
    parser.add_argument("--set", action="append", metavar="PATH=VALUE", dest="assignments", help=told, **UNSAID)
    sparse = parser.add_argument_group("for --to sparse (arXiv:2111.12763)")
    sparse.add_argument(
        "--data", nargs="+", type=Path, metavar="PATH", help="text to learn from (that of the run)", **UNSAID
    )
    told = "units of a feed-forward of which one is active; 0 leaves them dense (64)"
    sparse.add_argument("--block", type=int, metavar="N", help=told, **UNSAID)
    sparse.add_argument("--rank", type=int, metavar="N", help="of what chooses the active units (16)", **UNSAID)
    told = "modules of queries, keys and values; 0 leaves attention dense (8)"
    sparse.add_argument("--modules", type=int, metavar="N", help=told, **UNSAID)
    told = "steps in which each layer learns from the one that it replaces (300)"
    sparse.add_argument("--distil", type=int, metavar="N", help=told, **UNSAID)
    declare_dense(parser)
    declare_memory(parser)
    declare_training(parser)


def run(options: argparse.Namespace) -> int:
    """Convert, and tell what came of it."""
    given = {name for name in vars(options) if name in OF_SPARSE} | given_training(options).keys()
    if options.to == "memorizing":
        make_memorizing(options, given)
        return 0
    for name in OF_MEMORY:
        if name in options:
            raise ConfigError(f"--{name.replace('_', '-')} is for --to memorizing, not for --to {options.to}")
    if options.to == "dense":
        return make_dense(options, given)
    if "soft" in options:
        raise ConfigError(f"--soft is for --to dense, not for --to {options.to}")
    if options.to != "sparse":
        make_long(options, given)
        return 0
    if hasattr(options, "assignments"):
        raise ConfigError("--set is for long texts; the sparse model is told by --block, --rank and --modules")
    return _make_sparse(argparse.Namespace(**{**OF_SPARSE, **vars(options)}))


def _make_sparse(options: argparse.Namespace) -> int:
    """Convert, teach, train, and tell the loss at each stage."""
    _require_free(options)
    old: Any = load_model(options.run)
    spec = sparse_counterpart(old.spec, Sparsity(options.block or None, options.rank, options.modules or None))
    require_buildable(spec)
    training = training_after(options.run, given_training(options), spec.max_length)
    tokenizer = load_run_tokenizer(options.run)
    require_vocabulary(spec, tokenizer)
    prepared: Any = material_after(options.run, spec, options.data, options.out / "data")
    torch.manual_seed(training.seed)
    new = spec.build()
    task = Causal(prepared, training)
    stages = {"the dense model": _evaluate(old, task)}
    _teach(old, new, task, options.distil, training)
    stages["sparse layers, each taught by itself"] = _evaluate(new, task)
    outcome = train(new, task, training, options.out, tokenizer=prepared.tokenizer, pretrained=True)
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
