"""`formers datastore`: build a store of contexts and what followed them, add text to it, look into it."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from formers.cli.eval import LENGTH
from formers.cli.material import require_vocabulary
from formers.cli.model import read_spec
from formers.cli.neighbours import reader_of
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.data.source import documents
from formers.data.tokenizer import Tokenizer
from formers.data.tokens import TokenFile, write_text
from formers.datastore import (
    Datastore,
    Reading,
    Tap,
    add,
    build,
    build_index,
    distribution,
    extend_index,
    reading_for,
    search_of,
)
from formers.datastore.found import weights
from formers.datastore.index import KINDS, has_index
from formers.datastore.store import PRECISIONS
from formers.errors import ConfigError, DataError
from formers.model import Decoder
from formers.tasks.prepare import TRAIN
from formers.train import load_model, load_run_tokenizer
from formers.train.device import pick_device
from formers.train.run import run_folder

MIB = 1 << 20
SHOWN, BEFORE, LIKELIEST = 8, 48, 3  # neighbours, tokens of their contexts, tokens of what they say
EXAMPLES = """\
  formers datastore build runs/notes --out stores/notes
  formers datastore build runs/notes --data letters/ --keys fp16 --index pq --out stores/letters
  formers datastore add stores/letters --data more-letters/
  formers datastore search stores/letters --prompt "Dear "
"""


def declare(parser: Parser) -> None:
    """What to do, with which run or store."""
    parser.add_argument("action", choices=list(ACTIONS), metavar="build|add|search", help="what to do")
    parser.add_argument("subject", type=Path, metavar="RUN|DIR", help="the run to build from, or the store")
    parser.add_argument("--out", type=Path, metavar="DIR", help="build: the folder of the store")
    told = "build, add: text to store (what the run was trained on)"
    parser.add_argument("--data", nargs="+", type=Path, metavar="PATH", help=told)
    told = "build: what keys are kept in; fp16 and bf16 take half the room (fp32)"
    parser.add_argument("--keys", choices=list(PRECISIONS), help=told)
    told = (
        "build: tokens that are read at a time; every key has at least half of them before it (as the run was trained)"
    )
    parser.add_argument("--length", type=int, metavar="N", help=told)
    told = (
        "build: a search index by FAISS beside the store, or one of a store that is there; pq keeps codes of 64 bytes, flat "
        "whole keys (none: exact search)"
    )
    parser.add_argument("--index", choices=KINDS, help=told)
    parser.add_argument("--prompt", metavar="TEXT", help="search: the context to look up")
    parser.add_argument("--neighbours", type=int, metavar="K", help=f"search: how many to show ({SHOWN})")
    parser.add_argument("--exact", action="store_true", help="search: look at every key, though there is an index")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    _require_own(options)
    ACTIONS[options.action](options)


def _build(options: argparse.Namespace) -> None:
    if options.out is None:
        raise ConfigError("where the store is to lie is not said; give --out DIR")
    model, tokenizer = _opened(options.subject)
    with tempfile.TemporaryDirectory() as scratch:
        text = _text(options, tokenizer, Path(scratch))
        length = _length(options, model.spec)
        reading = Reading(model, text.tokens, start=tokenizer.end, length=length, overlap=length // 2)
        precision = options.keys or "fp32"
        run = str(options.subject.resolve())
        with ticking("storing keys") as tick:
            store = build(options.out, reading, tokenizer, precision=precision, run=run, tick=tick)
    if options.index is not None:
        with ticking("building the search index") as tick:
            build_index(store, options.index, tick)
    _tell(store)


def _add(options: argparse.Namespace) -> None:
    store = Datastore(options.subject)
    if not options.data:
        raise ConfigError("there is nothing to add; name text with --data PATH")
    model = reader_of(store)
    tokenizer = load_run_tokenizer(store.header.run)
    with tempfile.TemporaryDirectory() as scratch:
        text = write_text(Path(scratch) / "added.tokens", documents(options.data), tokenizer)
        with ticking("storing keys") as tick:
            store = add(store.folder, reading_for(store, model, text.tokens, tokenizer), tokenizer, tick=tick)
    if has_index(store):
        with ticking("bringing the search index up to date") as tick:
            extend_index(store, tick)
    _tell(store)


def _search(options: argparse.Namespace) -> None:
    store = Datastore(options.subject)
    if not options.prompt:
        raise ConfigError('there is no context to look up; give --prompt "Dear "')
    search = search_of(store, approximate=False if options.exact else None)
    model = reader_of(store)
    tokenizer = load_run_tokenizer(store.header.run)
    store.require(model, tokenizer)
    key = _key_of(model, tokenizer, options.prompt, store.header.length)
    found = search(key, SHOWN if options.neighbours is None else options.neighbours, None)
    tokens = found.tokens(store.values)
    terminal = Terminal()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("distance", "weight"):
        table.add_column(name, justify="right")
    table.add_column("context", justify="right", overflow="ellipsis", no_wrap=True)
    table.add_column("next", no_wrap=True)
    for far, weight, entry in zip(found.distances[0], weights(found)[0], found.entries[0].tolist(), strict=True):
        if entry >= 0:
            before = tokenizer.decode(_context(store, entry, tokenizer.end))
            figures = f"{float(far):.4g}", f"{float(weight):.3f}"
            table.add_row(*figures, Text(_on_a_line(before)), Text(_shown(tokenizer, int(store.values[entry])), "bold"))
    terminal.print(table)
    said = distribution(found, tokens, store.header.vocab)[0].topk(min(LIKELIEST, store.header.vocab))
    likely = [(_shown(tokenizer, int(t)), float(p)) for p, t in zip(*said, strict=True) if p > 0]
    terminal.print(Text("next: " + ", ".join(f"{token} {p:.0%}" for token, p in likely)))


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {"build": _build, "add": _add, "search": _search}
OWN = {
    "out": ("build",),
    "data": ("build", "add"),
    "keys": ("build",),
    "length": ("build",),
    "index": ("build",),
    "prompt": ("search",),
    "neighbours": ("search",),
    "exact": ("search",),
}


def _require_own(options: argparse.Namespace) -> None:
    """Raise ConfigError for an option of another action."""
    for name, actions in OWN.items():
        if getattr(options, name) not in (None, False) and options.action not in actions:
            raise ConfigError(f"--{name} is for formers datastore {' and '.join(actions)}, not {options.action}")


def _opened(run: Path) -> tuple[nn.Module, Tokenizer]:
    model: Any = load_model(run)
    if not isinstance(model.spec, Decoder):
        Tap(model)  # says why not
    tokenizer = load_run_tokenizer(run)
    require_vocabulary(model.spec, tokenizer)
    return model.to(pick_device()), tokenizer


def _text(options: argparse.Namespace, tokenizer: Tokenizer, scratch: Path) -> TokenFile:
    """What is to be stored, in the run's tokens."""
    if options.data:
        return write_text(scratch / "stored.tokens", documents(options.data), tokenizer)
    own = run_folder(options.subject) / "data" / TRAIN
    if not own.is_file():
        raise DataError(f"{options.subject} has no text of its own any more; name some with --data PATH")
    text = TokenFile.open(own)
    text.require(tokenizer)
    return text


def _length(options: argparse.Namespace, spec: Any) -> int:
    file = run_folder(options.subject) / "train.json"
    trained = read_spec(str(file)).length if file.is_file() else LENGTH
    length = options.length or min(trained, spec.max_length or trained)
    if length < 2 or (spec.max_length is not None and length > spec.max_length):
        most = "" if spec.max_length is None else f" and at most {spec.max_length}, which are its positions"
        raise ConfigError(f"{spec.name} cannot read {length} tokens at a time: give --length of at least 2{most}")
    return int(length)


def _key_of(model: Any, tokenizer: Tokenizer, prompt: str, length: int) -> torch.Tensor:
    """(1, dim), of the context that ends with the prompt."""
    ids = [*([] if tokenizer.end is None else [tokenizer.end]), *tokenizer.encode(prompt)][-length:]
    with torch.inference_mode(), Tap(model).open() as tap:
        out = model(torch.tensor([ids], device=pick_device()), remember=False)
        return tap.take(out)[0, -1:].float().cpu()


def _context(store: Datastore, entry: int, end: int | None) -> list[int]:
    """The tokens before one, as far back as its document goes."""
    before = np.asarray(store.values[max(0, entry - BEFORE) : entry])
    ends = np.flatnonzero(before == (-1 if end is None else end))
    return [int(token) for token in before[ends[-1] + 1 if len(ends) else 0 :]]


def _shown(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.end:
        return "(end)"
    return repr(tokenizer.decode([token]))


def _on_a_line(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", "⇥")


def _tell(store: Datastore) -> None:
    header = store.header
    size = store.count * header.key_bytes / MIB
    print(
        f"{store.folder}: {store.count:,} entries; keys of {store.dim} numbers in {header.precision}, {size:,.1f} MiB"
    )
    print(f"keys: the {header.place}; searched {'by its index' if has_index(store) else 'exactly'}")
