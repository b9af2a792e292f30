"""`formers convert --to longformer`, and other kinds for long texts: the same weights under another pattern."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from formers.cli.model import require_buildable
from formers.cli.progress import waiting
from formers.convert.long import lengthened
from formers.data.atomic import read_json
from formers.data.tokenizer import Tokenizer
from formers.errors import CheckpointError, ConfigError
from formers.hub import hold, load
from formers.hub.read import require_free
from formers.hub.source import CONFIG, read_config
from formers.hub.tokens import read_tokenizer
from formers.hub.write import tokenizer_of
from formers.model import parameter_count
from formers.spec import assign
from formers.train import load_model
from formers.train.run import run_folder
from formers.train.weights import copy_weights

IDS = "_token_id"  # how those keys of a config.json end that hold for any model of the same tokens


class Old(NamedTuple):
    """What is converted. config: what is known of it in Hugging Face's words, if anything is."""

    model: Any
    tokenizer: Tokenizer | None
    config: dict[str, Any]


def make_long(options: argparse.Namespace, given: Collection[str]) -> None:
    """Convert, and tell. given: options of training and of sparse layers, of which only the length is for long texts."""
    odd = sorted(set(given) - {"length"})
    if odd:
        told = f"--{odd[0].replace('_', '-')} is for --to sparse: --to {options.to} trains nothing"
        raise ConfigError(
            f"{told}. Train what comes out of it: formers train --from {options.out} --data ... --steps ..."
        )
    if "length" not in given:
        raise ConfigError("how long texts are to be is not said; give --length 4096, say")
    require_free(options.out)
    with waiting(f"reading {options.run}"):
        old = read_old(options.run)
        spec, weights = lengthened(old.model, options.to, options.length)
        for assignment in getattr(options, "assignments", ()):
            spec = assign(spec, assignment)
        require_buildable(spec)
        new = spec.build()
        copy_weights(new, weights, f"what {old.model.spec.name} becomes by --to {options.to}")
        hold(options.out, new, old.tokenizer, {name: id for name, id in old.config.items() if name.endswith(IDS)})
    more = parameter_count(new) - parameter_count(old.model)
    positions = "any number of positions" if spec.max_length is None else f"{spec.max_length:,} positions"
    print(f"{options.out}: {spec.name}, {positions}, {more:,} parameters more than {old.model.spec.name}")
    print(f"train it: formers train --from {options.out} --data ... --steps ... --out ...")


def read_old(folder: Path) -> Old:
    """The model of a run, of a checkpoint, or of a folder in Hugging Face's format, with its tokenizer if it has one.

    Raises CheckpointError where the folder is none of these, or its weights do not fit what it says of itself.
    """
    run = run_folder(folder)
    if (run / "spec.json").is_file():
        config = read_json(run / CONFIG) if (run / CONFIG).is_file() else {}
        model: Any = load_model(folder)
        return Old(model, tokenizer_of(run), config)
    if folder.is_dir() and not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} is neither a run, which has a spec.json, nor a model in Hugging Face's format, which has a {CONFIG}"
        )
    config = read_config(folder)
    model = load(folder)
    return Old(model, read_tokenizer(folder, config, model.spec.vocab), config)
