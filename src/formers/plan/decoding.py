"""Plans of decoding: what a stream keeps, what a token reads, and how fast memory lets it go."""

from dataclasses import dataclass
from typing import Any

import torch

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.plan.depth import extrapolated
from formers.plan.ledger import highest
from formers.plan.setup import Setup
from formers.plan.state import state_bytes
from formers.plan.trace import tracing
from formers.plan.weights import weights_of
from formers.report.abilities import causal
from formers.report.cost import cost
from formers.report.quantity import NUMBER

WIDTH = {"fp32": 4, "bf16": 2}  # bytes of a number


@dataclass(frozen=True)
class DecodingPlan:
    """So many streams at once on each device, each with all of its tokens before it.

    weights: bytes of all parameters; read: those that a token needs, at least; state: bytes that one stream keeps; step and
    prompt: bytes beside both while a token is made, and while one whole row is read at once. operations: of a token.
    """

    setup: Setup
    streams: int
    length: int
    precision: str
    parameters: int
    weights: int
    read: int
    state: int
    step: int
    prompt: int
    operations: float

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on each device, by purpose, at their highest: streams read their prompts one after another."""
        working = max(self.streams * self.step, self.prompt)
        return {"weights": self.weights, "state": self.streams * self.state, "working": working}

    @property
    def total(self) -> int:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.setup.usable

    @property
    def most_streams(self) -> int:
        """How many streams a device has room for."""
        left = self.setup.usable - self.weights - self.prompt
        return max(0, left // max(1, self.state + self.step))

    @property
    def moved(self) -> int:
        """Bytes that a step of all streams of a device reads. Streams that need other weights read these as well."""
        return min(self.weights, self.streams * self.read) + self.streams * self.state

    @property
    def seconds(self) -> float:
        """Of a step: of the memory's, and of the products'."""
        products = self.streams * self.operations / self.setup.speed(self.precision)
        return max(self.moved / self.setup.device.bandwidth, products)

    @property
    def rate(self) -> float:
        """Tokens a second of all streams on all devices, at most."""
        return self.setup.devices * self.streams / self.seconds


def plan_decoding(setup: Setup, streams: int, length: int, precision: str) -> DecodingPlan:
    """What decoding takes, from the spec alone: each device holds the whole model and serves streams of its own.

    Raises ConfigError for a model that does not write, or a length that it has no positions for.
    """
    setup.require_length(length)
    if streams < 1:
        raise ConfigError(f"{streams} streams write nothing; give --batch 1, or more")
    if not isinstance(setup.spec, EncoderDecoder) and causal(setup.spec) != "yes":
        raise ConfigError(f"{setup.spec.name} reads a whole text at once and does not write; leave --decode out")
    share = WIDTH[precision] / NUMBER
    found = extrapolated(lambda shallow: _counted(shallow, length), setup.spec)
    parameters = weights_of(setup.spec).total
    weights, read, state, step, prompt = (
        round(share * value)
        for value in (NUMBER * parameters, found["read"], found["state"], found["step"], found["prompt"])
    )
    return DecodingPlan(
        setup, streams, length, precision, parameters, weights, read, state, step, prompt, found["operations"]
    )


def _counted(spec: Any, length: int) -> dict[str, float]:
    """In fp32, of one stream."""
    whole = cost(spec, length).total
    return {"read": whole.weights, "operations": whole.last} | _traced(spec, length)


def _traced(spec: Any, length: int) -> dict[str, float]:
    with tracing() as trace, torch.no_grad():
        ledger = trace.ledger
        model = spec.build().eval()
        tokens = torch.zeros(1, length, dtype=torch.int64)
        before = sum(ledger.now.values())
        ledger.phase = "prompt"
        if isinstance(spec, EncoderDecoder):
            begun = model.start(tokens)
            state = model.step(tokens[:, :-1], begun).state if length > 1 else begun
            del begun
        else:
            state = model(tokens[:, :-1], logits_at=slice(-1, None)).state if length > 1 else None
        kept = sum(ledger.now.values())
        ledger.phase = "step"
        after = model.step(tokens[:, -1:], state).state
        ledger.phase = None
        held = state_bytes(after)
        peaks = {name: highest([e for phase, e in ledger.history if phase == name]) for name in ("prompt", "step")}
    prompt, step = (sum(peaks[name].values()) for name in ("prompt", "step"))
    return {"state": held, "step": max(0, step - max(kept, before + held)), "prompt": max(0, prompt - before - held)}
