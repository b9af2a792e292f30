"""Gated residuals in small models: the paper's own gate on each side, its other gates, and none."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import (
    MLP,
    Attention,
    Block,
    Decoder,
    Embedding,
    Encoder,
    Gated,
    GRUGate,
    HighwayGate,
    InputGate,
    OutputGate,
    RMSNorm,
    Rotary,
    SigTanhGate,
    Sinusoidal,
    Tied,
    stack,
)

GATES = {
    "gru gates": GRUGate(1.0),
    "input gates": InputGate(),
    "output gates": OutputGate(1.0),
    "highway gates": HighwayGate(1.0),
    "sigmoid-tanh gates": SigTanhGate(1.0),
    "identity map": None,
}


def gated_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, gate in GATES.items():
        block = Block((Attention(HEADS, position=Rotary()), MLP(24)), Gated(RMSNorm(), gate=gate))
        yield name, Decoder(name, VOCAB, DIM, stack(block, times=2))


def gated_encoders() -> Iterator[tuple[str, Encoder]]:
    # MLP(24) draws parameters at a kink of a ReLU, within the step of finite differences.
    block = Block((Attention(HEADS), MLP(20)), Gated(gate=GRUGate(1.0)))
    yield "gru gates", Encoder("gru gates", VOCAB, DIM, stack(block, times=2), Embedding(Sinusoidal()), head=Tied())
