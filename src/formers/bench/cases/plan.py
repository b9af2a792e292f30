"""Plans against runs: how far planned memory is from what a process takes that trains, or that decodes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from formers.bench.memory import MIB, in_fresh_process
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.family import MEMBERS, make
from formers.plan.decoding import plan_decoding
from formers.plan.device import DEVICES
from formers.plan.measured import measured_state, measured_step
from formers.plan.setup import Setup
from formers.plan.step import traced_step
from formers.report.rows import Row, value_at_most
from formers.train import TrainSpec

WITHIN = value_at_most(10)  # per cent
SIZES: dict[str, Any] = {"vocab": 4000, "dim": 256, "depth": 6, "heads": 4}


class Lot(NamedTuple):
    """A member, its arguments, and rows of tokens to train it on."""

    member: str
    arguments: dict[str, Any]
    batch: int
    length: int
    changes: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def name(self) -> str:
        return ", ".join([self.member, *(f"{name}={value}" for name, value in self.changes.items())])


LOTS = (
    Lot("gpt2", SIZES | {"length": 512}, 8, 512),
    Lot("gpt2", SIZES | {"length": 512}, 8, 512, {"accumulation": 4}),
    Lot("llama", SIZES | {"kv_heads": 4, "hidden": 688}, 8, 512, {"loss_chunk": 512}),
    Lot("bert", SIZES | {"hidden": 1024, "length": 512}, 8, 512),
    Lot("transformer", SIZES | {"depth": 3, "hidden": 1024}, 16, 128),
    Lot("reformer", SIZES | {"hidden": 1024}, 2, 4096),
    Lot("performer", SIZES, 4, 1024),
    Lot("terraformer", SIZES | {"depth": 3, "encoder_depth": 3, "hidden": 1024}, 4, 256),
    Lot("switch", SIZES, 8, 512),
    Lot("transformer_xl", SIZES | {"hidden": 1024, "segment": 128, "memory": 128}, 8, 128),
)
WRITERS = ("gpt2", "llama", "performer", "compressive_transformer")
STEPS, FAR = TrainSpec(steps=8), 600


@BENCHES.case(
    "plan",
    "planned memory of a training step against a process that runs one (dim 256)",
    unit="% off",
    better="lower",
    goal=WITHIN,
)
def training(trial: Trial) -> Iterator[Row]:
    """Each in a process of its own, weights, gradients and optimiser state included, at its highest."""
    lots = LOTS[:1] if trial.quick else LOTS
    with trial.progress(trial.case.title, len(lots)) as tick:
        for lot in lots:
            spec, small = _spec(lot, trial.quick), make(lot.member, **MEMBERS[lot.member].small)
            steps = STEPS.replace(batch=lot.batch, length=min(lot.length, spec.max_length or lot.length), **lot.changes)
            planned = traced_step(spec, steps).total
            yield _row(trial, lot.name, planned, in_fresh_process(measured_step, spec, steps, small))
            tick()


@BENCHES.case(
    "plan",
    "planned bytes that decoding keeps for a stream against a state as it is",
    unit="% off",
    better="lower",
    goal=WITHIN,
)
def decoding(trial: Trial) -> Iterator[Row]:
    """After 600 tokens, or as many as the model has positions."""
    for name in WRITERS[:1] if trial.quick else WRITERS:
        spec = make(name, **MEMBERS[name].small)
        length = min(FAR, spec.max_length or FAR)
        plan = plan_decoding(Setup(spec, 1, DEVICES["cpu"], 1 << 30, 1.0), 1, length, "fp32")
        yield _row(trial, name, plan.state, measured_state(spec, length))


def _spec(lot: Lot, quick: bool) -> Any:
    known = MEMBERS[lot.member].arguments
    smaller = {"depth": 2} if quick else {}
    return make(lot.member, **{name: value for name, value in (lot.arguments | smaller).items() if name in known})


def _row(trial: Trial, name: str, planned: int, measured: int) -> Row:
    off = 100 * abs(planned / measured - 1)
    return trial.row(name, off, note=f"planned {planned / MIB:.4g} MiB, measured {measured / MIB:.4g} MiB")
