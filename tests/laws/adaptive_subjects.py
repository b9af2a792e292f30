"""The Universal Transformer's depth in small models: both ways to combine states, to halt, to tell time, and transitions."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import (
    ACT,
    MLP,
    Attention,
    Block,
    Causal,
    CrossAttention,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    PostNorm,
    Rotary,
    SeparableConv,
    Sinusoidal,
    Tied,
    Universal,
    Window,
)

# Halting that differs from token to token, within the steps that there are.
EARLY = ACT(bias=-0.5)
CONV = SeparableConv(24, (3, 4))


def block(*sublayers) -> Block:
    return Block(sublayers, PostNorm())


def universal_decoders() -> Iterator[tuple[str, Decoder]]:
    plain = block(Attention(HEADS), MLP(24))
    window = block(Attention(HEADS, pattern=Causal() & Window(5), position=Rotary()), CONV)
    depths = {
        "universal": Universal(plain, 5, EARLY),
        "universal, fixed steps": Universal(plain, 3, None, time="learned"),
        "universal, accumulated": Universal(plain, 4, EARLY.replace(combine="accumulated"), time="learned"),
        "universal, copied": Universal(plain, 5, EARLY.replace(halted="copied")),
        "universal, convolutions": Universal(window, 4, EARLY, position=None),
        "universal, convolutions copied": Universal(window, 4, EARLY.replace(halted="copied"), position=None),
    }
    for name, depth in depths.items():
        yield name, Decoder(name, VOCAB, DIM, (depth,))


def universal_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, transition in {"universal": MLP(24), "universal, convolutions": CONV}.items():
        depth = Universal(block(Attention(HEADS), transition), 4, EARLY.replace(halted="copied"))
        yield name, Encoder(name, VOCAB, DIM, (depth,), head=Tied())


def universal_pairs() -> Iterator[tuple[str, EncoderDecoder]]:
    source = Encoder("source", VOCAB, DIM, (block(Attention(HEADS), MLP(24)),), Embedding(Sinusoidal()))
    writes = block(Attention(HEADS), CrossAttention(HEADS), MLP(24))
    target = Decoder("target", VOCAB, DIM, (Universal(writes, 4, EARLY.replace(halted="copied")),))
    yield "universal decoder, copied", EncoderDecoder("universal decoder, copied", source, target)
