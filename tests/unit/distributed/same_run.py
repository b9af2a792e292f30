"""A program that makes the same runs in one process and in several, and prints one line of JSON: what came of each.

Usage: python same_run.py FOLDER
"""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # loaded by the first optimiser: here once, and not by every fork
from ranks import together
from rich.console import Console
from tiny_run import TEXT, tiny_model, tiny_spec

from formers import make
from formers.distributed import Distribution
from formers.distributed.form import form
from formers.errors import ConfigError
from formers.tasks import Causal, CausalStreams, prepare
from formers.train import AdamW, Run, train
from formers.train.metrics import read_metrics

SPEC = tiny_spec(batch=8, accumulation=2, evaluate_every=3, checkpoint_every=3)
FULL = Distribution("full")


class Runs:
    def __init__(self, root: Path) -> None:
        self.root, self.told = root, {}
        self._text = prepare([TEXT], root / "text")

    def model(self, name: str) -> Any:
        if not name.startswith("stream"):
            return tiny_model(dropout=0.0)
        torch.manual_seed(0)
        sizes = {"dim": 16, "depth": 2, "heads": 2, "hidden": 32, "dropout": 0.0}
        return make("transformer_xl", vocab=257, segment=16, memory=16, **sizes).build()

    def train(self, name: str, spread: Distribution = Distribution(), *, resume: bool = False, **changes: Any) -> None:
        spec = SPEC.replace(**changes)
        task = (CausalStreams if name.startswith("stream") else Causal)(self._text, spec)
        silent = Console(file=io.StringIO())
        train(self.model(name), task, spec, self.root / name, console=silent, resume=resume, distribution=spread)

    def several(self, size: int, name: str, spread: Distribution, *, back: str = "", **changes: Any) -> None:
        """In several processes; back: the run whose first checkpoint it goes on from."""
        if back:
            self.rewind(back, name)
        self.told[f"codes of {name}"] = together(size, lambda _: self.train(name, spread, resume=bool(back), **changes))

    def rewind(self, name: str, other: str) -> None:
        """A copy of a run as it was after its first checkpoint."""
        shutil.copytree(self.root / name, self.root / other)
        shutil.rmtree(Run(self.root / other).checkpoints()[-1])

    def look(self, *names: str) -> None:
        for name in names:
            rows = read_metrics(self.root / name / "metrics.jsonl")
            self.told[name] = [[row["step"], row.get("loss", row.get("nats")), row.get("tokens")] for row in rows]


def refusals(rank: int) -> None:
    """What two processes cannot do."""
    plain = tiny_model()
    bad = {
        "rows": (plain, SPEC.replace(batch=7, accumulation=1), Distribution()),
        "pieces": (plain, SPEC.replace(batch=6), Distribution()),
        "groups": (plain, SPEC, Distribution(divide_experts=3)),
        "experts": (make("switch", vocab=11, dim=8, depth=2, heads=2, hidden=8, experts=3).build(), SPEC, TWO),
        "no experts": (plain, SPEC, TWO),
        "compile": (plain, SPEC.replace(compile=True), FULL),
    }
    for name, (model, spec, spread) in bad.items():
        try:
            form(model, spec, "cpu", spread)
        except ConfigError as error:
            if rank == 0:
                print(json.dumps([name, str(error)]), flush=True)


TWO = Distribution(divide_experts=2)


def main(root: Path) -> None:
    torch.set_num_threads(1)
    runs = Runs(root)
    runs.train("one")
    runs.several(2, "two", Distribution())
    runs.several(4, "four, sharded", FULL)
    runs.several(2, "from four to two", Distribution(), back="four, sharded")
    runs.several(4, "from one to four, sharded", FULL, back="one")
    runs.train("stream of one")
    runs.several(2, "stream of two", FULL)
    runs.several(4, "stream from two to four", Distribution(), back="stream of two")
    runs.rewind("stream of two", "stream from two to one")
    runs.train("stream from two to one", resume=True)
    names = [name for name in runs.told if not name.startswith("codes")]
    names += [name.removeprefix("codes of ") for name in runs.told]
    runs.look("one", "stream of one", "stream from two to one", *names)
    runs.several(2, "diverged", Distribution(), optimizer=AdamW(1e30), clip=None)
    runs.told["codes of refusals"] = together(2, refusals)
    print(json.dumps(runs.told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
