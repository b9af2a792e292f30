"""`formers demo`: a small Terraformer and its dense twin, trained on real text; how well and how fast each writes."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from formers.bench.race import race
from formers.cli.pace import Pace, find_pace
from formers.cli.parser import Parser
from formers.cli.progress import waiting
from formers.cli.terminal import Terminal
from formers.data.source import Beginning, documents, standard_library
from formers.decode import GREEDY, Sampling, generate, stream
from formers.errors import ConfigError
from formers.family import make
from formers.family.equal import as_large, size
from formers.model import Decoder, parameter_count
from formers.report.compression import xz_bits, xz_bits_after
from formers.report.twins import Twin, draw_twins
from formers.tasks import Causal, Prepared, prepare
from formers.train import AdamW, CosineDecay, Outcome, TrainSpec, train

VOCAB = 2048
DENSE, SPARSE = "dense", "terraformer"
SIZES = {"dim": 192, "depth": 4, "heads": 6, "attentions": 1, "positions": "sinusoidal", "dropout": 0.0}
HIDDEN = 768  # units of the dense feed-forward
SPARSITY = {"block": 16, "rank": 16, "modules": 6, "loss_modules": 2}
TRAINING = TrainSpec(1, batch=4, length=256, optimizer=AdamW(learning_rate=3e-3), evaluate_tokens=20_000)
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
    told = "the folder of the two runs (runs/demo)"
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER", help=told)
    parser.add_argument("--minutes", type=float, default=4.0, metavar="M", help="how long to train, both together (4)")


def run(options: argparse.Namespace) -> int:
    """Prepare, train both, compare, draw, write."""
    if not 0 < options.minutes < float("inf"):
        raise ConfigError(f"{options.minutes} minutes are no time to train in; give --minutes 4")
    terminal = Terminal()
    out = _free(options.out)
    texts = standard_library() if options.data is None else documents(options.data)
    terminal.print(f"learning from {texts.place}")
    prepared = prepare(Beginning(texts, MOST), out / "data", tokenizer=f"bpe:{VOCAB}")
    models = {name: _built(spec) for name, spec in twins(prepared.tokenizer.vocab).items()}
    with waiting("timing a few steps"):
        pace = find_pace(models.values(), lambda spec: Causal(prepared, spec), TRAINING)
    training = _planned(pace, options.minutes * 60)
    _tell_plan(terminal, models, prepared, training)
    outcomes: dict[str, Outcome] = {}
    for name, model in models.items():
        terminal.print(f"\n{name}: {parameter_count(model):,} parameters", style="bold")
        task = Causal(prepared, training)
        outcomes[name] = train(model, task, training, out / name, tokenizer=prepared.tokenizer)
        if not outcomes[name].finished:
            return 130
    _compare(terminal, models, outcomes, prepared, out)
    _write(terminal, models[SPARSE].eval(), prepared)
    terminal.print(f"\nthe runs are in {out}, both in one picture in {out / 'twins.png'}", style="bold")
    run = out / SPARSE
    terminal.print(f"go on:  formers generate {run} --prompt 'import '\n        formers show {run}")
    return 0


def twins(vocab: int) -> dict[str, Decoder]:
    """The dense model, and the Terraformer of as many parameters."""
    dense: Decoder = make("scaling_transformer", vocab=vocab, hidden=HIDDEN, sparse=(), **SIZES)

    def terraformer(hidden: int) -> Any:
        return make("terraformer_lm", vocab=vocab, hidden=hidden, recurrence=(1, 16), **SIZES, **SPARSITY)

    return {DENSE: dense, SPARSE: as_large(terraformer, size(dense), SPARSITY["block"])}


def _built(spec: Decoder) -> Any:
    torch.manual_seed(TRAINING.seed)
    return spec.build()


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
    return pace.training.replace(steps=steps, schedule=schedule, evaluate_every=-(-steps // 8), checkpoint_every=steps)


def _tell_plan(terminal: Terminal, models: Mapping[str, Any], prepared: Prepared, training: TrainSpec) -> None:
    reading, tested = (file.text_bytes or 0 for file in (prepared.train, prepared.held_out))
    share = training.steps * training.batch * training.length / len(prepared.train)
    terminal.print(
        f"{reading / 1e6:.1f} MB in {prepared.tokenizer.vocab:,} kinds of word pieces; {tested / 1e6:.2f} MB held out\n"
        f"{' and '.join(models)}: {training.steps:,} steps each in {training.precision}, through {share:.0%} of the text"
    )


def _compare(
    terminal: Terminal, models: Mapping[str, Any], outcomes: Mapping[str, Outcome], prepared: Prepared, out: Path
) -> None:
    """Both losses beside those of xz, and both speeds; the same as a picture."""
    with waiting("writing with both in turns"):
        speeds = _speeds(models, prepared.held_out.tokens[:OPENING].tolist())
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
    table.add_column("\ntokens written a second", justify="right")
    bits = {name: outcome.held_out["bits_per_byte"] for name, outcome in outcomes.items()}
    for name in models:
        told = f"{name}, reading {TRAINING.length} tokens at a time"
        table.add_row(told, f"{bits[name]:.3f}", f"{speeds[name]:,.0f}", style="bold")
    for name, found in rivals.items():
        table.add_row(name, f"{found:.3f}")
    terminal.print(table)
    draw_twins(
        [Twin(name, out / name / "metrics.jsonl", bits[name], speeds[name]) for name in models], out / "twins.png"
    )


def _speeds(models: Mapping[str, Any], prompt: list[int]) -> dict[str, float]:
    """Tokens a second of each model, writing as a user would have it write."""

    def writer(model: Any) -> Any:
        return lambda: generate(model, [prompt], max_new=NEW, sampling=GREEDY)

    seconds = race({name: writer(model.eval()) for name, model in models.items()}, warmup=1, rounds=3)
    return {name: NEW / took for name, took in seconds.items()}


def _write(terminal: Terminal, model: Any, prepared: Prepared) -> None:
    """The opening of the held-out text, and how the model goes on from there."""
    tokens = prepared.held_out.tokens[:OPENING].tolist()
    terminal.print(f"\n{SPARSE} goes on from the first words of the held-out text:", style="bold")
    terminal.print(prepared.tokenizer.decode(tokens), style="dim", end="", markup=False)
    how = Sampling(temperature=0.8, top_p=0.95)
    for piece in stream(model, tokens, max_new=NEW, sampling=how, tokenizer=prepared.tokenizer):
        print(piece, end="", flush=True)
    print()
