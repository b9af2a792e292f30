"""`formers generate`: write with a trained model."""

import argparse
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from formers.canvas import canvases
from formers.cli.neighbours import declare_mix, declare_neighbours, refuse_store, with_store
from formers.cli.painting import declare_picture, paint_picture
from formers.cli.parser import Parser
from formers.data.source.reading import read_text
from formers.data.tokenizer import Tokenizer
from formers.decode import Sampling, beam_search, generate, stream
from formers.decode.engine import ENGINES, Choice, choose_engine
from formers.encoder_decoder import EncoderDecoder
from formers.errors import DataError, FormersError
from formers.native.engine.weights import TYPES
from formers.train import load_model, load_run_tokenizer
from formers.train.device import pick_device

TOGETHER = 32  # prompts that are written on side by side
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
EXAMPLES = """\
  formers generate runs/notes --prompt "Dear reader," --max-new 300 --temperature 0.8 --top-p 0.95
  cat draft.txt | formers generate runs/notes --stop "The end"
  formers generate runs/notes --prompt "Dear " --datastore stores/letters --mix 0.4
  formers generate runs/digits --picture digits.png --count 16
  formers generate runs/en-de --prompt-file sentences.en --beam 4 > sentences.de
"""


def declare(parser: Parser) -> None:
    """A model, what it is to read, and how it is to write."""
    parser.add_argument(
        "model", type=Path, metavar="RUN", help="a run, a checkpoint, or a folder as Hugging Face has them"
    )
    where = parser.add_mutually_exclusive_group()
    told = "text to write on from, or for an encoder-decoder the source; may be repeated (standard input)"
    where.add_argument("--prompt", action="append", dest="prompts", metavar="TEXT", help=told)
    told = "a file that holds the prompt; for an encoder-decoder each line is a source"
    where.add_argument("--prompt-file", type=Path, metavar="FILE", help=told)
    parser.add_argument("--max-new", type=int, default=256, metavar="N", help="the most tokens to write (256)")
    told = "0 always takes the likeliest token (1; 0 for an encoder-decoder)"
    parser.add_argument("--temperature", type=float, metavar="X", help=told)
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="among the likeliest that together have probability P")
    parser.add_argument(
        "--min-p", type=float, metavar="P", help="among those at least P times as likely as the likeliest"
    )
    told = "above 1, makes tokens that were seen less likely"
    parser.add_argument("--repetition-penalty", type=float, metavar="X", help=told)
    told = "text that ends the writing, and is not written; may be repeated"
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help=told)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what is random (0): equal seeds, equal text"
    )
    told = "native: C++ on packed weights; torch: PyTorch; auto: native where it knows all parts of the model (auto)"
    parser.add_argument("--engine", choices=ENGINES, default="auto", help=told)
    told = "the native engine's weights; int8 and int4 are read faster, and less exact (the model's own)"
    parser.add_argument("--dtype", choices=TYPES, help=told)
    parser.add_argument("--beam", type=int, metavar="N", help="search for the likeliest text with a beam of N instead")
    declare_neighbours(parser, "write with a store of contexts beside the model, decoded by PyTorch")
    declare_mix(parser, "share of the neighbours (0.25)")
    declare_picture(parser)


def run(options: argparse.Namespace) -> None:
    """Write: a single text as a stream, several one after another."""
    _require_one_way(options)
    if options.picture is not None:
        refuse_store(options, "a store is of text, and --picture asks for images")
        paint_picture(options, _sampling(options, False), functools.partial(_engine, options))
        return
    model, tokenizer = open_model(options.model)
    model = with_store(options, model.to(pick_device()), tokenizer)
    translates = isinstance(model.spec, EncoderDecoder)
    texts = _prompts(options, translates)
    prompts = [tokenizer.encode(text) for text in texts]
    if len(prompts) == 1 and options.beam is None:
        how = {"max_new": options.max_new, "stop": options.stop, "seed": options.seed}
        engine = _engine(options, model)
        sampling = _sampling(options, translates)
        for piece in stream(model, prompts[0], tokenizer=tokenizer, sampling=sampling, engine=engine, **how):
            print(piece, end="", flush=True)
        print()
        return
    for number, text in enumerate(_written(options, model, prompts, tokenizer)):
        if translates:
            print(" ".join(text.splitlines()), flush=True)
        else:
            print(*([f"--- {texts[number]}"] if len(texts) > 1 else []), text, sep="\n", flush=True)


def _require_one_way(options: argparse.Namespace) -> None:
    given = [name for name in SAMPLING if getattr(options, name) is not None]
    if options.beam is not None and given:
        option = "--" + given[0].replace("_", "-")
        raise FormersError(f"a beam finds the likeliest text and samples nothing; leave out --beam or {option}")
    if options.beam is not None and (options.engine == "native" or options.dtype is not None):
        raise FormersError("a beam is searched with PyTorch; leave out --beam, or --engine and --dtype")


def _engine(options: argparse.Namespace, model: Any) -> Choice:
    """How to decode. Where the native engine could have been expected, standard error says why PyTorch does it."""
    choice = choose_engine(model, options.engine, options.dtype)
    if options.engine == "auto" and choice.why is not None:
        print(f"decoding with PyTorch: {choice.why}", file=sys.stderr)
    return choice.packed()


def open_model(path: Path) -> tuple[Any, Tokenizer]:
    """The model and the tokenizer of a run, a checkpoint, or a folder in Hugging Face's format."""
    model: Any
    if not (path / "config.json").is_file() or (path / "spec.json").is_file():
        model = load_model(path)
        if canvases(model.spec):
            raise FormersError(f"{path} is a model of images and writes no text: give --picture FILE.png")
        return model, load_run_tokenizer(path)
    from formers.hub import load
    from formers.hub.source import read_config
    from formers.hub.tokens import read_tokenizer

    model = load(path)
    tokenizer = read_tokenizer(path, read_config(path), model.spec.vocab)
    if tokenizer is None:
        raise DataError(f"{path} holds no tokenizer; put the model's tokenizer.json there")
    return model, tokenizer


def _prompts(options: argparse.Namespace, translates: bool) -> list[str]:
    """The texts to begin with; from a terminal that gives none, one that is empty."""
    if options.prompts:
        return list(options.prompts)
    text = _read(options.prompt_file)
    if not translates:
        return [text.removesuffix("\n")]
    lines = text.splitlines()
    if not lines:
        raise DataError("there is nothing to translate; give --prompt, --prompt-file, or lines on standard input")
    return lines


def _read(file: Path | None) -> str:
    if file is not None:
        return read_text(file)
    if sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _sampling(options: argparse.Namespace, translates: bool) -> Sampling:
    chosen = {name: getattr(options, name) for name in SAMPLING if getattr(options, name) is not None}
    return Sampling(**({"temperature": 0.0} if translates else {}) | chosen)


def _written(options: argparse.Namespace, model: Any, prompts: list[list[int]], tokenizer: Tokenizer) -> Iterator[str]:
    """What is written for each prompt, in their order, many of them side by side."""
    groups = [prompts[start : start + TOGETHER] for start in range(0, len(prompts), TOGETHER)]
    how: dict[str, Any] = {"max_new": options.max_new, "stop": options.stop, "tokenizer": tokenizer}
    if options.beam is not None:
        for group in groups:
            found = beam_search(model, group, width=options.beam, **how)
            yield from (best[0].text or "" for best in found)
        return
    how |= {"engine": _engine(options, model)}
    sampling = _sampling(options, isinstance(model.spec, EncoderDecoder))
    for number, group in enumerate(groups):
        rows = generate(model, group, sampling=sampling, seed=options.seed + number * TOGETHER, **how)
        yield from (row.text or "" for row in rows)
