"""`formers train`: train a model on text or images, in a run folder."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from formers.canvas import canvases
from formers.cli.after_run import copy_model, material_after, training_after
from formers.cli.distribution import declare_distribution, given_distribution
from formers.cli.material import Material, open_material, prepare_material, require_vocabulary, task_of, told
from formers.cli.model import chosen_model, declare_model, read_spec, require_buildable
from formers.cli.neighbours import declare_neighbours, refuse_store, require_store, store_run, take_in
from formers.cli.parser import Parser
from formers.cli.teacher import taught
from formers.cli.training import changed, declare_training, given_training, new_training
from formers.data.images import read_images
from formers.distributed import Distribution, joined
from formers.distributed.environment import is_first
from formers.encoder_decoder import EncoderDecoder
from formers.errors import CheckpointError, ConfigError
from formers.model import parameter_count
from formers.tasks.frame import Frame
from formers.tasks.pictures import PreparedImages, open_images, prepare_images
from formers.train import Run, TrainSpec, load_run_tokenizer, train
from formers.train.run import run_folder

INTERRUPTED = 130
EXAMPLES = """\
  formers train gpt2 dim=128 depth=4 heads=4 length=256 --data notes/ --out runs/notes --steps 2000
  formers train llama dim=256 depth=6 heads=8 hidden=688 --data text.jsonl --tokenizer bpe:8000 \\
      --steps 5000 --learning-rate 2e-3 --schedule "CosineDecay(warm_up=200)" --out runs/llama
  formers train transformer dim=256 depth=3 heads=4 hidden=1024 --data train.en train.de \\
      --label-smoothing 0.1 --steps 8000 --out runs/en-de
  formers train image_transformer levels=16 depth=4 dim=128 "block=(4, 7)" "memory=(8, 7)" --data mnist.npz \\
      --steps 2000 --out runs/digits
  formers train --from runs/longformer --data books/ --out runs/longformer-books --steps 2000
  formers train spalm dim=256 depth=4 heads=4 hidden=1024 --data notes/ --datastore stores/notes --out runs/spalm \
      --steps 2000
  formers train --resume --out runs/notes
  torchrun --nproc-per-node 2 -m formers train gpt2 --data notes/ --out runs/notes --steps 2000 --shard full
"""


def declare(parser: Parser) -> None:
    """A model, its data, its folder, and a training spec."""
    declare_model(parser, optional=True)
    told = (
        "text files, folders or JSON lines; for an encoder-decoder two files, line by line SOURCE and TARGET; for a model "
        "of images an .npz, PNG files, folders of them, or the word digits"
    )
    parser.add_argument("--data", nargs="+", type=Path, metavar="PATH", help=told)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the folder of the run")
    told = "bytes, characters, bpe:8000, or a path (bytes; for an encoder-decoder bpe:8000)"
    parser.add_argument("--tokenizer", metavar="KIND", help=told)
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, with its own data")
    told = "begin with the weights of this run; its spec, tokenizer, data and training too, where no others are given"
    parser.add_argument("--from", type=Path, metavar="RUN", dest="begin", help=told)
    declare_neighbours(
        parser, "for a model that takes in retrieved tokens: where they are found, once, before training"
    )
    declare_training(parser)
    declare_distribution(parser)


class Prepared(NamedTuple):
    """A training run that can begin. resume: it goes on. begin: the run whose weights it takes."""

    spec: Any
    material: Material | PreparedImages
    training: TrainSpec
    resume: bool = False
    begin: Path | None = None


def run(options: argparse.Namespace) -> int:
    """Train; 130 if Ctrl-C stopped it, with everything saved.

    Under torchrun, one of several processes: the first prepares and speaks, and all train.
    """
    distribution = given_distribution(options)
    with joined() as world:
        with nullcontext() if world is None else world.in_turn():
            prepared = _prepared(options, restarted=world is not None and world.at.attempt > 0)
        return train_and_tell(prepared, options.out, distribution)


def _prepared(options: argparse.Namespace, *, restarted: bool) -> Prepared:
    """restarted: the same words were run before, and whoever starts them again wants what was saved to be used."""
    if restarted and Run(options.out).checkpoints():
        return _resume(options)
    if options.resume and options.begin is not None:
        raise ConfigError("a run that goes on has weights of its own; leave out --from or --resume")
    if options.resume:
        refuse_store(options, "a run that goes on has what was found for its data already")
        return _resume(options)
    if not restarted:
        _require_free(options.out)
    return _begin(options)


def _begin(options: argparse.Namespace) -> Prepared:
    if options.begin is not None:
        return _begin_after(options)
    if options.model is None:
        raise ConfigError("no model is named; begin with a member or a spec file, or add --resume to go on with a run")
    _require_data(options.data)
    spec = chosen_model(options)
    require_store(options, spec)
    if canvases(spec):
        return _begin_pictures(options)
    require_buildable(spec)
    training = new_training(given_training(options), _longest(spec))
    usual = "bpe:8000" if isinstance(spec, EncoderDecoder) else "bytes"
    tokenizer = options.tokenizer or store_run(options) or usual
    material = prepare_material(spec, options.data, options.out / "data", tokenizer)
    spec = chosen_model(options, vocab=material.tokenizer.vocab)
    require_vocabulary(spec, material.tokenizer)
    material = take_in(options, material, options.out / "data")
    return Prepared(spec, material, training)


def _begin_after(options: argparse.Namespace) -> Prepared:
    """Train what another run has trained: under other patterns, say, or on longer rows."""
    if options.tokenizer is not None:
        raise ConfigError(f"the weights of {options.begin} know its own tokens; leave out --tokenizer")
    if options.model is None:
        options.model = str(run_folder(options.begin))
    spec = chosen_model(options)
    if canvases(spec):
        raise ConfigError(f"{spec.name} is a model of images, and --from is for those of text")
    tokenizer = load_run_tokenizer(options.begin)
    spec = chosen_model(options, vocab=tokenizer.vocab)
    require_buildable(spec)
    require_vocabulary(spec, tokenizer)
    require_store(options, spec, begin=options.begin)
    training = training_after(options.begin, given_training(options), _longest(spec))
    material = material_after(options.begin, spec, options.data, options.out / "data")
    material = take_in(options, material, options.out / "data")
    return Prepared(spec, material, training, begin=options.begin)


def _begin_pictures(options: argparse.Namespace) -> Prepared:
    """Train on images, whose shape is the model's unless it was given."""
    if options.tokenizer is not None:
        raise ConfigError(f"--tokenizer {options.tokenizer} is for text, and {options.model} is a model of images")
    images = read_images(options.data)
    spec = chosen_model(options, **_shape(images.shape))
    require_buildable(spec)
    frame, given = Frame.of(spec), given_training(options)
    frame.require(images.shape)
    length = given.setdefault("length", frame.written.length)
    if length != frame.written.length:
        raise ConfigError(f"rows are whole images, of {frame.written.length} tokens, not {length}: leave out --length")
    training = new_training(given, None)
    return Prepared(spec, prepare_images(images, options.out / "data"), training)


def _shape(shape: tuple[int, int, int]) -> dict[str, Any]:
    return dict(zip(("height", "width", "channels"), shape, strict=True))


def _resume(options: argparse.Namespace) -> Prepared:
    folder = Run(options.out)
    if not folder.started:
        raise CheckpointError(f"{options.out} holds no run to resume; leave --resume out to begin one")
    material: Material | PreparedImages
    if canvases(folder.spec):
        material = open_images(options.out / "data")
        spec = folder.spec if options.model is None else chosen_model(options, **_shape(material.shape))
    else:
        tokenizer = load_run_tokenizer(options.out)
        spec = folder.spec if options.model is None else chosen_model(options, vocab=tokenizer.vocab)
        material = open_material(spec, options.out / "data", tokenizer)
    training = changed(read_spec(str(options.out / "train.json")), given_training(options))
    _say(f"going on with the data that the run began with, in {options.out / 'data'}")
    return Prepared(spec, material, training, resume=True)


def train_and_tell(prepared: Prepared, out: Path, distribution: Distribution) -> int:
    """Train, with what there is told before and what became of it after; the exit code."""
    spec, material, training, resume, begin = prepared
    torch.manual_seed(training.seed)
    model = spec.build()
    if begin is not None:
        copy_model(begin, model)
    _say(f"{spec.name}: {parameter_count(model):,} parameters; {told(material)}")
    outcome = train(
        model,
        taught(task_of(spec, material, training), out),
        training,
        out,
        tokenizer=material.tokenizer,
        resume=resume,
        pretrained=begin is not None,
        distribution=distribution,
    )
    if not outcome.finished:
        return INTERRUPTED
    _say(f"the run is in {out}, its loss in {out / 'loss.png'}")
    return 0


def _say(text: str) -> None:
    """One line, by one of several processes."""
    if is_first():
        print(text, flush=True)


def _longest(spec: Any) -> int | None:
    """The longest row that the model can read; None: any."""
    sides = (spec.source, spec.target) if isinstance(spec, EncoderDecoder) else (spec,)
    return min((side.max_length for side in sides if side.max_length is not None), default=None)


def _require_free(out: Path) -> None:
    if Run(out).started:
        raise CheckpointError(f"{out} holds a run already; add --resume to go on with it, or name another --out")


def _require_data(data: list[Path] | None) -> None:
    if not data:
        raise ConfigError("there is nothing to learn from; name text with --data PATH")
    for path in data:
        if "=" in path.name and not path.exists():
            raise ConfigError(f"{path} was taken for data; write the arguments of the model before --data")
