"""`formers calibrate`: the threshold by which tokens may leave early, found with a promise of what that risks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from formers.cli.calibrate_search import search_thresholds
from formers.cli.material import require_vocabulary
from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.data.atomic import write_json
from formers.data.source import documents, pairs
from formers.data.source.reading import read_text
from formers.data.tokenizer import Tokenizer
from formers.decode.engine import ENGINES
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError, DataError, FormersError
from formers.exits.calibration import Calibration, Promise, Writings, at_threshold, walk_down, with_threshold
from formers.exits.calibration.picture import save_picture
from formers.exits.calibration.threshold import leaves_by_confidence
from formers.hub import hold
from formers.hub.read import require_free
from formers.train import load_model, load_run_tokenizer
from formers.train.device import pick_device

EXAMPLES = """\
  formers calibrate runs/notes --data held_out.txt --risk 0.02 --confidence 0.95 --out runs/fast-notes
  formers calibrate runs/notes --data held_out.txt --against references --out runs/fast-notes
  formers calibrate runs/en-de --data sentences.en --max-new 80 --out runs/fast-en-de
  formers calibrate runs/adaptive --data held_out.txt --search 0.02 --out runs/fast-adaptive
  formers generate runs/fast-notes --prompt "Dear reader,"
"""


class Texts(NamedTuple):
    """Prompts, and what was written behind them by others; None where nobody says."""

    prompts: list[list[int]]
    references: list[list[int]] | None


def declare(parser: Parser) -> None:
    """A run, text that it has not seen, and what is to be promised."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run, or one of its checkpoints, whose tokens may leave"
    )
    told = (
        "text that the model was not trained on; for an encoder-decoder a file of sources, and perhaps one of targets"
    )
    parser.add_argument("--data", nargs="+", required=True, type=Path, metavar="PATH", help=told)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder to make")
    told = "the mean loss of a new text that is accepted, between 0 and 1 (0.02)"
    parser.add_argument("--risk", type=float, default=0.02, metavar="X", help=told)
    told = "the share of all calibrations of which that holds (0.95)"
    parser.add_argument("--confidence", type=float, default=0.95, metavar="X", help=told)
    told = "full: a text loses as it is unlike the full model's; references: as it is more unlike the truth than that (full)"
    parser.add_argument("--against", choices=("full", "references"), default="full", help=told)
    parser.add_argument("--texts", type=int, default=500, metavar="N", help="the most texts to calibrate on (500)")
    parser.add_argument("--prompt", type=int, default=64, metavar="N", help="tokens before each text (64)")
    parser.add_argument("--max-new", type=int, default=64, metavar="N", help="tokens of each text (64)")
    parser.add_argument("--grid", type=int, default=20, metavar="N", help="thresholds from 1 down to 0, N steps (20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of which texts are taken (0)")
    told = "search a threshold for each exit of a geometric head instead: what a block costs, in shares of right tokens"
    parser.add_argument("--search", type=float, metavar="PRICE", help=told)
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="what writes, as of `formers generate` (auto)"
    )


def run(options: argparse.Namespace) -> None:
    """Find the threshold, and hold the model with it."""
    require_free(options.out)
    promise = Promise(options.risk, options.confidence)
    _require_counts(options)
    model: Any = load_model(options.run).to(pick_device())
    at_threshold(model.spec, None)  # a model without exits is refused before any text is read
    tokenizer = load_run_tokenizer(options.run)
    require_vocabulary(model.spec, tokenizer)
    texts = _texts(options, model, tokenizer)
    if options.search is not None:
        search_thresholds(options, model, tokenizer, texts.prompts, texts.references or ())
        return
    promise.require(len(texts.prompts))
    found = _found(options, model, tokenizer, texts, promise)
    _tell(found)
    if found.threshold is None or found.chosen is None:
        raise FormersError(
            f"not even the highest threshold can be shown to risk at most {promise.risk:g}: ask for a higher --risk or a "
            "lower --confidence, or give more --texts"
        )
    _hold(options, with_threshold(model, found.threshold), tokenizer, found)


def _require_counts(options: argparse.Namespace) -> None:
    for name in ("texts", "prompt", "max_new", "grid"):
        if getattr(options, name) < 1:
            raise ConfigError(
                f"--{name.replace('_', '-')} {getattr(options, name)} leaves nothing to do; give 1 or more"
            )


def _found(
    options: argparse.Namespace, model: Any, tokenizer: Tokenizer, texts: Texts, promise: Promise
) -> Calibration:
    thresholds = [1 - step / options.grid for step in range(options.grid + 1)]
    with ticking(f"writing {len(texts.prompts):,} texts in full"):
        writings = Writings(
            model,
            texts.prompts,
            options.max_new,
            references=texts.references,
            tokenizer=tokenizer,
            engine=options.engine,
        )
    with ticking("trying thresholds, from the highest down") as tick:
        return walk_down(writings.at, thresholds, promise, tick)


def _texts(options: argparse.Namespace, model: Any, tokenizer: Tokenizer) -> Texts:
    """Some of the texts, drawn by the seed."""
    with_references = options.against == "references" or options.search is not None
    if isinstance(model.spec, EncoderDecoder):
        every = _of_lines(options.data, tokenizer, with_references)
    else:
        every = _of_documents(options.data, tokenizer, options.prompt, options.max_new)
    drawn = torch.randperm(len(every.prompts), generator=torch.Generator().manual_seed(options.seed))
    numbers = drawn[: options.texts].tolist()
    references = [every.references[n] for n in numbers] if every.references and with_references else None
    return Texts([every.prompts[n] for n in numbers], references)


def _of_documents(data: Sequence[Path], tokenizer: Tokenizer, before: int, behind: int) -> Texts:
    """Stretches that do not overlap, of so many tokens before and behind where the model begins to write."""
    prompts: list[list[int]] = []
    references: list[list[int]] = []
    for document in documents(data):
        tokens = tokenizer.encode(document)
        for start in range(0, len(tokens) - before - behind + 1, before + behind):
            stretch = tokens[start : start + before + behind]
            prompts.append(stretch[:before])
            references.append(stretch[before:])
    return Texts(prompts, references)


def _of_lines(data: Sequence[Path], tokenizer: Tokenizer, with_references: bool) -> Texts:
    """Sources, one a line, and their targets where these are given."""
    if len(data) == 2:
        both = [(tokenizer.encode(source), tokenizer.encode(target)) for source, target in pairs(*data)]
        return Texts([source for source, _ in both], [target for _, target in both])
    if len(data) != 1 or with_references:
        raise DataError("an encoder-decoder is calibrated on --data SOURCE, and on SOURCE TARGET for references")
    return Texts([tokenizer.encode(line) for line in read_text(data[0]).splitlines() if line.strip()], None)


def _tell(found: Calibration) -> None:
    terminal = Terminal()
    terminal.print(f"{'threshold':>9} {'mean loss':>10} {'p-value':>9} {'mean exit':>10}")
    for tried in found.tried:
        held = "" if tried.p <= found.promise.epsilon else "   not shown: here it stops"
        terminal.print(f"{tried.threshold:9.3f} {tried.risk:10.4f} {tried.p:9.2g} {tried.mean_exit:10.2f}{held}")


def _hold(options: argparse.Namespace, model: Any, tokenizer: Tokenizer, found: Calibration) -> None:
    """The run, and beside its weights what was found."""
    hold(options.out, model, tokenizer, {})
    chosen, promise, depth = found.chosen, found.promise, _depth(model.spec)
    assert chosen is not None
    told = {"risk": promise.risk, "confidence": promise.confidence, "texts": found.texts, "against": options.against}
    asked = {"prompt": options.prompt, "max_new": options.max_new, "threshold": chosen.threshold}
    write_json(options.out / "calibration.json", told | asked | {"tried": [tried._asdict() for tried in found.tried]})
    save_picture(options.out / "calibration.png", f"{model.spec.name}, calibrated", found, depth)
    print(
        f"{options.out}: threshold {chosen.threshold:g}, {chosen.mean_exit:.2f} of {depth} blocks in the mean. Of texts like "
        f"these the mean loss is at most {promise.risk:g}, with a confidence of {promise.confidence:g}"
    )


def _depth(spec: Any) -> int:
    """Of the exits."""
    spec = spec.target if isinstance(spec, EncoderDecoder) else spec
    return next(len(block.blocks) for block in spec.blocks if leaves_by_confidence(block))
