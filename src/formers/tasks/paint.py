"""Images that a trained model generates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from formers.decode import Sampling
from formers.decode.engine import Choice, choose_engine
from formers.decode.prompt import prepare
from formers.decode.sampling import row_seeds
from formers.errors import FormersError
from formers.tasks.pictures import START
from formers.train.task import Tick, untold

TOGETHER = 32  # images that are written side by side


def paint(
    model: nn.Module,
    given: Sequence[Sequence[int]],
    length: int,
    *,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    engine: Choice | None = None,
    tick: Tick = untold,
) -> Tensor:
    """One image for each of `given`: (N, length) int64, its tokens in the order of generation.

    given: of a decoder the tokens that an image begins with, all images equally many; of an encoder-decoder what the encoder
    is to read. tick: told how much is written. Each image draws its random numbers from a seed of its own, so that it does
    not depend on those beside it. Raises FormersError for what the model cannot read, and for a repetition penalty.
    """
    if sampling.looks_back:
        raise FormersError(
            "a repetition penalty makes colours that were seen less likely, which no image wants; leave it out"
        )
    choice = choose_engine(model) if engine is None else engine
    paired, seeds = hasattr(model, "start"), row_seeds(seed, len(given))
    written: list[Tensor] = []
    rows = list(given) if paired else [[START, *row] for row in given]
    new = length if paired else length + 1 - len(rows[0])
    steps = -(-len(rows) // TOGETHER) * new

    def told(step: int) -> None:
        tick((len(written) * new + step) / steps)

    for at in range(0, len(rows), TOGETHER):
        group = slice(at, at + TOGETHER)
        written.append(_written(model, rows[group], new, sampling, seeds[group], choice, told))
    fresh = torch.cat(written)
    return fresh if paired else torch.cat([torch.tensor(rows, dtype=torch.int64)[:, 1:], fresh], 1)


def _written(
    model: nn.Module, rows: list[Any], new: int, sampling: Sampling, seeds: list[int], choice: Choice, told: Any
) -> Tensor:
    """(N, new), what is written behind the rows."""
    writer = choice.writer(model, prepare(model, rows, new, START, None), sampling, seeds)
    columns: list[list[int]] = []
    for step in range(new):
        columns.append(writer.write())
        told(step + 1)
    return torch.tensor(columns).T
