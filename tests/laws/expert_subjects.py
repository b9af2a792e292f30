"""Layers of experts by themselves in small models, and within attention."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import (
    GLU,
    MLP,
    Attention,
    Block,
    Causal,
    Decoder,
    Encoder,
    Linear,
    Rotary,
    Switch,
    SwitchAttention,
    Tied,
    Window,
    stack,
)
from formers.call import Layer

EXPERTS = {
    "gated experts": Switch(GLU(24), 3),
    "two of three experts": Switch(MLP(24), 3, top_k=2),
}
LIMITED = {"experts with seats": Switch(MLP(24), 3, eval_capacity=0.8)}
WITHIN = SwitchAttention(HEADS, Switch(Linear(), 3))


def blocks(before: Layer, layer: Layer) -> tuple[Block, ...]:
    return stack(Block((before, layer)), times=2)


def plain() -> Attention:
    return Attention(HEADS, position=Rotary())


def expert_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, layer in EXPERTS.items():
        yield name, Decoder(name, VOCAB, DIM, blocks(plain(), layer))
    rolling = WITHIN.replace(pattern=Causal() & Window(5), position=Rotary())
    yield "switch attention", Decoder("within", VOCAB, DIM, blocks(WITHIN, MLP(24)))
    yield "switch attention of a window", Decoder("rolling", VOCAB, DIM, blocks(rolling, MLP(24)))


def expert_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, layer in (EXPERTS | LIMITED).items():
        yield name, Encoder(name, VOCAB, DIM, blocks(plain(), layer), head=Tied())
    of_feed_forwards = WITHIN.replace(switch=Switch(MLP(24), 3, top_k=2))
    yield "switch attention", Encoder("within", VOCAB, DIM, blocks(of_feed_forwards, MLP(24)), head=Tied())
