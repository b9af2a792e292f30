"""SPALM: a gate learns when to listen to what followed alike contexts, and listens where they agree."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.cases.knn_lm import BITS, language_model, store_of
from formers.claim.neighbour_task import (
    TINY,
    Sizes,
    keys_of,
    learn,
    nats_of,
    prepared,
    python_sources,
    targets_of,
    training,
)
from formers.datastore import Datastore, best_mix, exact, mixed_nats, probability, search_of
from formers.datastore.training import prepare_neighbours, retrieved_task
from formers.family import make
from formers.report.rows import Row, value_at_least, value_at_most
from formers.tasks import Prepared, causal_task

K, RATE = 4, 1e-3
SIZES = Sizes(stored=100_000)
TRAINED = Rival("the same model, trained on without a memory")
MIXED = "that one mixed with the same neighbours, by one share that is best for these very characters"


@CLAIMS.case(
    "spalm",
    "4 retrieved characters and a gate (arXiv:2102.02557), trained 600 steps more than a Transformer-XL of 900 (2 layers, "
    "dim 96), beside it trained as long without them, on Python's sources",
    unit="bits/character",
    better="lower",
    rival=TRAINED,
)
def spalm(trial: Trial) -> Iterator[Row]:
    """All three know the same 100,000 characters, which are stored; keys are of the model after 900 steps."""
    sizes = TINY if trial.quick else SIZES
    with TemporaryDirectory() as folder, trial.progress("", sizes.steps + 2 * sizes.more + 2) as tick:
        place, domain = Path(folder), python_sources(sizes)
        tick(0, "learning")
        reader = language_model(place, domain, sizes, tick)
        store = store_of(place / "store", reader, domain.train[: sizes.stored], sizes)
        tick(1, "looking up")
        text = prepared(place, domain, sizes.stored)
        with_memory, without = continued(place, reader, store, text, sizes, tick)
        tick(1, "evaluating")
        windows = domain.windows(sizes)
        found = exact(store, keys_of(reader, windows), K)
    tokens, targets = found.tokens(store.values), targets_of(windows)
    ours, gate = nats_of(with_memory, windows, tokens)
    plain, _ = nats_of(without, windows)
    near = probability(found, tokens, targets)
    mix = best_mix(plain, near)
    yield from rows(trial, ours, plain, mixed_nats(plain, near, mix), mix)
    assert gate is not None
    yield gate_row(trial, gate, (tokens == targets[:, None]).all(1))


def continued(
    place: Path, reader: nn.Module, store: Datastore, text: Prepared, sizes: Sizes, tick: Callable[..., None]
) -> tuple[nn.Module, nn.Module]:
    """The model trained on with what is found for each character, and without."""
    near = prepare_neighbours(text, place, store, reader, search_of(store), K)
    begin = balanced(reader).state_dict()
    spec = training(sizes, sizes.more, RATE)
    made = []
    for name in ("spalm", "transformer_xl"):
        tick(0, f"training {name}")
        torch.manual_seed(0)
        model = make(name, **sizes.model).build()
        model.load_state_dict(begin, strict=False)  # all but the gate
        model_spec: Any = model.spec
        task = retrieved_task(near, spec, model_spec) if name == "spalm" else causal_task(text, spec, model_spec)
        made.append(learn(model, task, sizes, sizes.more, RATE, tick))
    return made[0], made[1]


def balanced(model: nn.Module) -> nn.Module:
    """A post-norm model that computes the same, its token vectors y as long as its last hidden states h.

    After training without a memory h is some ten times as long, so that m, a mean of y, tells next to nothing: y · y is a
    nat or less, where h · y spans ten. Longer vectors mean a last norm that gives shorter h, and first products that
    read less and write more; the norm behind these does not see the difference.
    """
    model = copy.deepcopy(model)
    blocks: Any = model.stack.blocks  # type: ignore[union-attr]
    table: Any = model.embedding.tokens.weight  # type: ignore[union-attr]
    first, last = blocks[0].sublayers[0].projection, blocks[-1].residual.norms[-1]
    with torch.no_grad():
        length = torch.cat([last.weight, last.bias]).norm() / table.norm(dim=1).mean()
        times = length.sqrt()
        for product in (first.q_proj, first.k_proj, first.v_proj, last):
            for parameter in product.parameters():
                parameter.div_(times)
        for parameter in (table, *first.out_proj.parameters()):
            parameter.mul_(times)
    return model


def rows(trial: Trial, ours: Tensor, plain: Tensor, mixed: Tensor, mix: float) -> Iterator[Row]:
    """Ours beside both others."""
    bits = [BITS * float(nats.mean()) for nats in (ours, plain, mixed)]
    yield trial.row("with a gated memory", bits[0], bits[1])
    yield trial.row("saved by it", bits[1] - bits[0], rival=None, better="higher", goal=value_at_least(0.01))
    note = f"the share is {mix:.2f}"
    yield trial.row("with a gated memory, beside a mixture", bits[0], bits[2], rival=MIXED, note=note)
    above = bits[0] - bits[2]
    yield trial.row("above the mixture", above, rival=None, goal=value_at_most(0.0))


def gate_row(trial: Trial, gate: Tensor, agree: Tensor) -> Row:
    """How much less the model listens to itself where all its neighbours are right."""
    there, elsewhere = float(gate[agree].mean()), float(gate[~agree].mean())
    note = (
        f"{there:.3f} where they are ({float(agree.double().mean()):.0%} of the characters), {elsewhere:.3f} elsewhere"
    )
    name = "lower gate where all neighbours are right"
    return trial.row(
        name, elsewhere - there, rival=None, unit="share", better="higher", goal=value_at_least(0.05), note=note
    )
