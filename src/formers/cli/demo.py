"""`formers demo`: a small model, trained on real text in two minutes, beside what xz makes of the same text."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from formers.cli.pace import Pace, find_pace
from formers.cli.parser import Parser
from formers.cli.progress import waiting
from formers.cli.terminal import Terminal
from formers.data.source import documents, standard_library
from formers.decode import Sampling, stream
from formers.errors import ConfigError
from formers.family import make
from formers.head import Tied
from formers.model import parameter_count
from formers.report.compression import xz_bits, xz_bits_after
from formers.tasks import Causal, Prepared, prepare
from formers.train import AdamW, CosineDecay, TrainSpec, train

VOCAB = 2048
SIZES = {"dim": 192, "depth": 4, "heads": 6, "hidden": 512}
TRAINING = TrainSpec(1, batch=4, length=256, optimizer=AdamW(learning_rate=4e-3), evaluate_tokens=20_000)
WARM_UP = 0.05  # share of the steps
MOST = 1 << 25  # characters of text: far more than can be learned from in some minutes
OPENING, NEW = 48, 256  # tokens of the sample's prompt, and of what is written
EXAMPLES = """\
  formers demo
  formers demo --data notes/ --out runs/notes --minutes 10
"""


def declare(parser: Parser) -> None:
    """What to learn from, where, and for how long."""
    told = "a file, a folder or JSON lines (the standard library's source)"
    parser.add_argument("--data", type=Path, metavar="PATH", help=told)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="RUN", help="the run's folder (runs/demo)"
    )
    parser.add_argument("--minutes", type=float, default=2.0, metavar="M", help="how long to train (2)")


def run(options: argparse.Namespace) -> int:
    """Prepare, train, compare, write."""
    if not 0 < options.minutes < float("inf"):
        raise ConfigError(f"{options.minutes} minutes are no time to train in; give --minutes 2")
    terminal = Terminal()
    out = _free(options.out)
    texts = standard_library() if options.data is None else documents(options.data)
    terminal.print(f"learning from {texts.place}")
    prepared = prepare(Beginning(texts, MOST), out / "data", tokenizer=f"bpe:{VOCAB}")
    torch.manual_seed(TRAINING.seed)
    model = make("llama", vocab=prepared.tokenizer.vocab, **SIZES).replace(head=Tied(), name="demo").build()
    with waiting("timing a few steps"):
        pace = find_pace(model, lambda spec: Causal(prepared, spec), TRAINING)
    training = _planned(pace, options.minutes * 60)
    _tell_plan(terminal, model, prepared, training)
    outcome = train(model, Causal(prepared, training), training, out, tokenizer=prepared.tokenizer)
    if not outcome.finished:
        return 130
    terminal.print(_comparison(outcome.held_out["bits_per_byte"], prepared))
    _write(terminal, model.eval(), prepared)
    terminal.print(f"\nthe run is in {out}, its loss in {out / 'loss.png'}", style="bold")
    terminal.print(f"go on:  formers generate {out} --prompt 'import '\n        formers show {out}")
    return 0


class Beginning:
    """Documents up to a number of characters, the last one cut; walked through anew each time."""

    def __init__(self, texts: Iterable[str], most: int) -> None:
        self.texts, self.most = texts, most

    def __iter__(self) -> Iterator[str]:
        left = self.most
        for text in self.texts:
            if len(text) >= left:
                yield text[:left]
                return
            left -= len(text)
            yield text


def _free(wanted: Path) -> Path:
    """The folder that was wanted, or where something is already, the next number behind its name."""
    out, number = wanted, 1
    while out.exists() and (not out.is_dir() or any(out.iterdir())):
        number += 1
        out = wanted.with_name(f"{wanted.name}-{number}")
    return out


def _planned(pace: Pace, seconds: float) -> TrainSpec:
    """As many steps as there is time for."""
    steps = max(1, round(seconds / pace.seconds))
    schedule = CosineDecay(warm_up=round(WARM_UP * steps), floor=0.05)
    return pace.training.replace(steps=steps, schedule=schedule, evaluate_every=-(-steps // 4), checkpoint_every=steps)


def _tell_plan(terminal: Terminal, model: Any, prepared: Prepared, training: TrainSpec) -> None:
    reading, tested = (file.text_bytes or 0 for file in (prepared.train, prepared.held_out))
    share = training.steps * training.batch * training.length / len(prepared.train)
    terminal.print(
        f"{reading / 1e6:.1f} MB in {prepared.tokenizer.vocab:,} kinds of word pieces; {tested / 1e6:.2f} MB held out\n"
        f"a decoder as LLaMA's: {parameter_count(model):,} parameters, {training.steps:,} steps in {training.precision}, "
        f"through {share:.0%} of the text"
    )


def _comparison(ours: float, prepared: Prepared) -> Table:
    """Bits per byte of the held-out text: the model's, and those of xz, which is not helped and then helped."""
    with waiting("compressing the same text with xz -9"):
        text, before = (
            prepared.tokenizer.decode(file.tokens.tolist()).encode() for file in (prepared.held_out, prepared.train)
        )
        rivals = {
            "xz -9e, of this text alone": xz_bits(text),
            "xz -9e, after all that was learned from": xz_bits_after(before, text),
        }
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column(f"\nheld-out text, {len(text):,} bytes")
    table.add_column("\nbits per byte", justify="right")
    table.add_row("the model, reading 256 tokens at a time", f"{ours:.3f}", style="bold")
    for name, bits in rivals.items():
        table.add_row(name, f"{bits:.3f}")
    return table


def _write(terminal: Terminal, model: Any, prepared: Prepared) -> None:
    """The opening of the held-out text, and how the model goes on from there."""
    tokens = prepared.held_out.tokens[:OPENING].tolist()
    terminal.print("\nthe model goes on from the first words of the held-out text:", style="bold")
    terminal.print(prepared.tokenizer.decode(tokens), style="dim", end="", markup=False)
    how = Sampling(temperature=0.8, top_p=0.95)
    for piece in stream(model, tokens, max_new=NEW, sampling=how, tokenizer=prepared.tokenizer):
        print(piece, end="", flush=True)
    print()
