"""The vanilla Transformer, trained from scratch on Multi30k, English to German."""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from formers import family
from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.data.atomic import replacing
from formers.data.source import pairs
from formers.errors import DataError
from formers.report.rows import Row, value_at_least
from formers.tasks import PreparedPairs, Translation, prepare_pairs, translate
from formers.train import AdamW, InverseSquareRoot, Run, TrainSpec, train
from formers.train.metrics import read_metrics

SOURCE, TARGET = "en", "de"
SHOWN = 20
SENSIBLE = 30.0  # BLEU; models of 5 to 10 times the updates get 35 to 40 on this corpus
NEEDS = "a folder with train.en, train.de, val.en, val.de, plain or .gz (github.com/multi30k/dataset, data/task1/raw)"


@dataclass(frozen=True)
class Setting:
    """Sizes that one core trains in an hour while the machine does other things."""

    vocab: int = 6000
    dim: int = 192
    depth: int = 3
    heads: int = 4
    hidden: int = 768
    dropout: float = 0.1
    steps: int = 2000
    tokens: int = 2048
    peak: float = 1e-3
    warm_up: int = 400

    def training(self) -> TrainSpec:
        """The paper's optimiser, shape of schedule and label smoothing (arXiv:1706.03762, section 5).

        Differs from the paper: its warm-up alone would outlast this run, and a rule of thumb for 25,000 tokens in a
        batch is too steep for 2,048; so warm-up and peak are set by hand. Gradients are clipped.
        """
        adam = AdamW(self.peak, (0.9, 0.98), eps=1e-9, weight_decay=0.0)
        return TrainSpec(
            steps=self.steps,
            batch=self.tokens // 16,
            length=16,
            optimizer=adam,
            schedule=InverseSquareRoot(self.warm_up),
            label_smoothing=0.1,
            evaluate_every=max(1, self.steps // 10),
            evaluate_tokens=1_000_000,  # all of the held-out text, but BLEU at the end only: it takes a minute
            checkpoint_every=max(1, self.steps // 10),
        )


@CLAIMS.case(
    "multi30k",
    "the Transformer of arXiv:1706.03762 (dim 192, 3 + 3 layers, joint BPE) on Multi30k, English to German",
    unit="BLEU",
    goal=value_at_least(SENSIBLE),
    needs=NEEDS,
)
def multi30k(trial: Trial) -> Iterator[Row]:
    """Trains, tells the curve of the held-out loss, and shows twenty translations, which it also keeps."""
    setting = Setting(vocab=300, dim=16, depth=1, hidden=16, steps=4, tokens=512) if trial.quick else Setting()
    learned, held_out = corpus(trial.require_data())
    folder = trial.keep("run")
    prepared = prepare_pairs(learned, held_out, trial.keep("text"), tokenizer=f"bpe:{setting.vocab}")
    spec = setting.training()
    torch.manual_seed(spec.seed)
    sizes = {"dim": setting.dim, "depth": setting.depth, "heads": setting.heads, "hidden": setting.hidden}
    model = family.make("transformer", vocab=prepared.tokenizer.vocab, dropout=setting.dropout, **sizes).build()
    task, resume = Translation(prepared, spec), Run(folder).started
    outcome = train(model, task, spec, folder, tokenizer=prepared.tokenizer, resume=resume, console=trial.console)
    if not outcome.finished:
        raise KeyboardInterrupt
    show(trial, prepared, model)
    for row in read_metrics(Run(folder).metrics):
        if row["kind"] == "held_out":
            name = f"held-out loss after {row['step']:,} steps"
            yield trial.row(name, row["nats"], unit="nats/token", better="lower", goal=None)
    yield trial.row("time to train", outcome.position.seconds / 60, unit="minutes", better="lower", goal=None)
    yield trial.row("BLEU", outcome.held_out.get("bleu"), note=how_scored(len(held_out)))


def how_scored(count: int) -> str:
    """How the BLEU came about, or why there is none."""
    if importlib.util.find_spec("sacrebleu") is None:
        return "not measured: pip install sacrebleu"
    version = importlib.metadata.version("sacrebleu")
    return f"sacrebleu {version} of beam 4 on the {count:,} pairs of val, by which nothing was chosen; last checkpoint"


def corpus(folder: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs to train on and those held out; raises DataError for a folder that lacks one of the four files."""
    learned, held_out = (
        list(pairs(_file(folder, part, SOURCE), _file(folder, part, TARGET))) for part in ("train", "val")
    )
    return learned, held_out


def _file(folder: Path, part: str, side: str) -> Path:
    for name in (f"{part}.{side}", f"{part}.{side}.gz"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has neither {part}.{side} nor {part}.{side}.gz; give {NEEDS}")


def show(trial: Trial, prepared: PreparedPairs, model: torch.nn.Module) -> None:
    """Print twenty translations, evenly spread over the held-out pairs, beside source and reference; keep them too."""
    chosen = range(0, len(prepared.held_out), max(1, len(prepared.held_out) // SHOWN))[:SHOWN]
    written = translate(model, [prepared.held_out[number][0] for number in chosen], prepared.tokenizer)
    text = "\n".join(_told(*prepared.held_out_text[number], ours) for number, ours in zip(chosen, written, strict=True))
    with replacing(trial.keep("translations.txt")) as (stream,):
        stream.write(text.encode())
    trial.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _told(source: str, reference: str, ours: str) -> str:
    return f"source     {source}\nreference  {reference}\nours       {ours}\n"
