"""`formers eval`: how well a trained model does on text or images that it has not seen."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from formers.canvas import canvases
from formers.cli.longer_memory import asked_memory, declare_memory, require_filled
from formers.cli.material import material_to_test, open_material, require_vocabulary, task_of
from formers.cli.model import read_spec
from formers.cli.neighbours import (
    declare_mix,
    declare_neighbours,
    evaluate_beside,
    refuse_store,
    refuse_without_store,
)
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.data.images import read_images
from formers.datastore.training import PreparedNeighbours
from formers.model import Decoder, Encoder
from formers.tasks import evaluate_text
from formers.tasks.pictures import evaluate_images, open_images
from formers.train import TrainSpec, load_model, load_run_tokenizer
from formers.train.device import pick_device
from formers.train.run import run_folder

LENGTH, BATCH = 512, 8  # of the rows for models that were not trained here
WORDS = {
    "bits_per_byte": "bits per byte",
    "bits_per_dim": "bits per dimension",
    "perplexity": "perplexity",
    "alone_bits_per_byte": "bits per byte without the store",
    "alone_perplexity": "perplexity without the store",
    "mix": "share of the neighbours",
    "gate": "share of the model beside retrieved tokens",
    "own": "tokens that are in the store themselves",
    "nats": "nats per token",
    "accuracy": "accuracy",
    "cpc": "nats per hidden sentence",
    "retrieval": "share of hidden sentences that are found",
    "bleu": "BLEU",
    "tokens": "tokens",
    "bytes": "bytes",
    "images": "images",
    "dead_units": "share of sparse units that were never chosen",
    "effective_units": "units of a block that do the work",
    "mean_span": "mean span of a head, in tokens",
    "saved_scores": "share of attention's scores that short spans save",
}
EXAMPLES = """\
  formers eval runs/notes
  formers eval runs/notes --data other.txt
  formers eval runs/notes --data other.txt --datastore stores/other --mix tune
  formers eval runs/xl --memory 2048 --clamp 400
"""


def declare(parser: Parser) -> None:
    """A run, and perhaps other data."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, or one of its checkpoints")
    told = "text or images to evaluate on, all of it (what the run held out); for an encoder-decoder SOURCE and TARGET"
    parser.add_argument("--data", nargs="+", type=Path, metavar="PATH", help=told)
    declare_neighbours(parser, "evaluate with a store of contexts beside the model")
    told = "share of the neighbours, or tune: for each half of the text the best one of the other half (0.25)"
    declare_mix(parser, told, may_tune=True)
    declare_memory(parser)


def run(options: argparse.Namespace) -> None:
    """Print one figure a line."""
    refuse_without_store(options)
    model: Any = asked_memory(load_model(options.run).to(pick_device()), options)
    if canvases(model.spec):
        refuse_store(options, f"{model.spec.name} is a model of images, and a store is of text")
        print_figures(_of_images(model, options.data, run_folder(options.run)))
        return
    tokenizer = load_run_tokenizer(options.run)
    require_vocabulary(model.spec, tokenizer)
    folder = run_folder(options.run)
    with tempfile.TemporaryDirectory() as scratch:
        if options.data:
            material = material_to_test(model.spec, options.data, Path(scratch), tokenizer)
        else:
            material = open_material(model.spec, folder / "data", tokenizer)
        require_filled(options, material)
        if options.datastore is None:
            found = evaluate(model, material, _training(folder, model.spec))
        else:
            found = evaluate_beside(options, model, material, _training(folder, model.spec))
    print_figures(found)


def _of_images(model: Any, data: list[Path] | None, folder: Path) -> dict[str, float]:
    images = read_images(data).together if data else open_images(folder / "data").held_out
    with ticking("evaluating") as tick:
        return evaluate_images(model, images, _training(folder, model.spec), tick=tick)


def evaluate(model: Any, material: Any, training: TrainSpec) -> dict[str, float]:
    """The figures of a model on the held-out part of some material."""
    with ticking("evaluating") as tick:
        if isinstance(material, PreparedNeighbours):
            return task_of(model.spec, material, training).evaluate(model, tick=tick)
        if isinstance(model.spec, Decoder):
            text, tokenizer = material.held_out, material.tokenizer
            return evaluate_text(model, text, tokenizer, training.length, training.batch, tick=tick)
        if isinstance(model.spec, Encoder):  # rows that a short text can fill
            training = training.replace(length=min(training.length, len(material.train)))
        return task_of(model.spec, material, training).evaluate(model, tick=tick)


def print_figures(found: dict[str, float]) -> None:
    """The figures that are known, one a line."""
    words = {name: word for name, word in WORDS.items() if name in found}
    width = max(map(len, words.values()))
    for name, word in words.items():
        whole = isinstance(found[name], int)
        print(f"{word:<{width}}  {found[name]:{',' if whole else ',.4f'}}")


def _training(folder: Path, spec: Any) -> TrainSpec:
    """What the run was trained with, or for an imported model what it can read."""
    file = folder / "train.json"
    if file.is_file():
        return read_spec(str(file))
    return TrainSpec(1, batch=BATCH, length=min(LENGTH, spec.max_length or LENGTH))
