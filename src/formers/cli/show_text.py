"""`formers show --text`: which tokens of a text attention lets meet, where content chooses them, or how many steps each took."""

import argparse
from pathlib import Path
from typing import Any

import torch

from formers.cli.material import require_vocabulary
from formers.cli.show_steps import show_steps
from formers.cli.terminal import Terminal
from formers.data.tokenizer import ByteTokenizer, Tokenizer
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError, FormersError
from formers.family import MEMBERS
from formers.report.drawing import draw
from formers.report.meeting import pieces, square_of, told
from formers.report.parts import Look, looks
from formers.report.ponder import halting_depths
from formers.report.selection import Selection, selections
from formers.spec.codec import mean
from formers.train import load_model, load_run_tokenizer

UNTRAINED = "an untrained model: its weights are random, and each byte is a token"


def show_text(options: argparse.Namespace, spec: Any) -> None:
    """Draw the steps of tokens that halt, or else one head of one layer. Raises FormersError for what cannot be drawn."""
    halts = options.layer is None and options.head is None and halting_depths(spec)
    path = "" if halts else _layer(spec, options.layer)
    head = 0 if halts else _head(spec, path, options.head)
    trained = Path(options.model).is_dir() and options.model not in MEMBERS
    if trained and options.assignments:
        raise ConfigError("--set would make it another model than the run has trained; leave out --set or --text")
    tokenizer: Tokenizer = load_run_tokenizer(options.model) if trained else ByteTokenizer(special=())
    require_vocabulary(spec, tokenizer)
    tokens = tokenizer.encode(options.text)
    _require_readable(spec, tokens)
    model, names = load_model(options.model) if trained else _drawn(spec), pieces(tokenizer, tokens)
    if halts:
        if not trained:
            Terminal().print(UNTRAINED, style="dim")
        show_steps(options, model, tokens, names)
        return
    found = selections(model, tokens)
    chosen = next((selection for selection in found if selection.path == path), None)
    if chosen is None:
        raise FormersError(
            f"{path} was not met in the pass: its module is not named as the field that it is built from"
        )
    _print(chosen, head, names, [other.path for other in found if other.path != path], trained=trained)
    if options.plot:
        from formers.report.picture import CELLS, save_picture

        heads = range(chosen.heads) if options.head is None else [head]
        panels = [square_of(chosen, each, names, CELLS) for each in heads]
        save_picture(options.plot, f"{spec.name}, {path}", panels)


def _print(chosen: Selection, head: int, names: list[str], others: list[str], *, trained: bool) -> None:
    terminal = Terminal()
    terminal.print(chosen.path, style="cyan", markup=False)
    if not trained:
        terminal.print(UNTRAINED, style="dim")
    terminal.print(draw(square_of(chosen, head, names), ascii_only=terminal.options.ascii_only))
    for line in told(chosen, head, names):
        terminal.print(line, markup=False)
    if chosen.plan is None:
        untrained = "" if trained else f', or --set "{chosen.path}.select.plain_below=0"'
        terminal.print(f"to see it choose: a longer text{untrained}", markup=False)
    if others:
        terminal.print(f"also choosing by content (--layer): {', '.join(others)}", style="dim", markup=False)


def _layer(spec: Any, wanted: str | None) -> str:
    """The path of an attention that chooses by content: the one that is wanted, or the first."""
    found = [path for look in _choosing(spec) for path in look.paths]
    if not found:
        if spec.name in MEMBERS and _choosing(MEMBERS[spec.name].make()):
            raise FormersError(
                f"of this depth and with these layers {spec.name} has no attention whose pairs are chosen by content, as it "
                "has by itself: leave out what changes them, such as depth=..., or make it deeper"
            )
        able = [name for name, member in MEMBERS.items() if _choosing(member.make())]
        has = f"{', '.join(able)} has" if len(able) == 1 else f"{', '.join(able)} have"
        plain = [path for look in looks(spec) if look.by_content is None for path in look.paths]
        mend = f", and so has this by --set '{plain[0]}.select=TopBlocks(block=4, count=2)'" if plain else ""
        raise FormersError(
            f"{spec.name} has no attention whose pairs are chosen by content, so a text does not change which tokens "
            f"meet; {has}{mend}"
        )
    if wanted is None:
        return found[0]
    if wanted not in found:
        others = [path for look in looks(spec) for path in look.paths]
        what = "chooses no pairs by content" if wanted in others else f"is no attention of {spec.name}"
        raise FormersError(f"{wanted} {what}: {mean(wanted, found)}")
    return wanted


def _choosing(spec: Any) -> list[Look]:
    return [look for look in looks(spec) if look.draws_pairs]


def _head(spec: Any, path: str, wanted: int | None) -> int:
    heads = next(look.heads for look in looks(spec) if path in look.paths)
    head = wanted or 0
    if not 0 <= head < heads:
        raise FormersError(f"there is no head {head}: {path} has {heads}, counted from 0")
    return head


def _require_readable(spec: Any, tokens: list[int]) -> None:
    if not tokens:
        raise FormersError("an empty text has no tokens that could meet; give --text some words")
    sides = [spec.source, spec.target] if isinstance(spec, EncoderDecoder) else [spec]
    for side in sides:
        if side.max_length is not None and len(tokens) > side.max_length:
            what = f"the text has {len(tokens):,} tokens and {side.name} has {side.max_length:,} positions"
            raise FormersError(f"{what}; give a shorter one")


def _drawn(spec: Any) -> Any:
    """The model with random weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return spec.build().eval()
