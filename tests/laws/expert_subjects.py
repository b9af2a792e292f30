"""Layers of experts by themselves in small models."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import GLU, MLP, Attention, Block, Decoder, Encoder, Rotary, Switch, Tied, stack

EXPERTS = {
    "gated experts": Switch(GLU(24), 3),
    "two of three experts": Switch(MLP(24), 3, top_k=2),
}
LIMITED = {"experts with seats": Switch(MLP(24), 3, eval_capacity=0.8)}


def expert_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, layer in EXPERTS.items():
        block = Block((Attention(HEADS, position=Rotary()), layer))
        yield name, Decoder(name, VOCAB, DIM, stack(block, times=2))


def expert_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, layer in (EXPERTS | LIMITED).items():
        block = Block((Attention(HEADS, position=Rotary()), layer))
        yield name, Encoder(name, VOCAB, DIM, stack(block, times=2), head=Tied())
