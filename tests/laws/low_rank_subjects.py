"""Attention to slots and Fourier mixing by themselves in small models."""

from collections.abc import Iterator
from typing import Any

from sizes import DIM, HEADS, LENGTH, VOCAB

from formers import (
    MLP,
    Attention,
    Block,
    ConvolvedSlots,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Fourier,
    Layerwise,
    LinearSlots,
    Linformer,
    LinformerCross,
    PooledSlots,
    ProjectedEmbedding,
    Rotary,
    Sinusoidal,
    Tied,
    stack,
)
from formers.call import Layer

COMPRESSED = {
    "slots for each head": LinearSlots("none"),
    "slots for all heads": LinearSlots(),
    "slots for keys and values": LinearSlots("keys_values"),
    "means": PooledSlots(),
    "maxima": PooledSlots("max"),
    "convolutions": ConvolvedSlots(),
    "convolutions for each head": ConvolvedSlots("none"),
}


def mixer(name: str, *layers: Layer) -> Encoder:
    blocks = tuple(Block((layer, MLP(48))) for layer in layers)
    return Encoder(name, VOCAB, DIM, blocks, Embedding(Sinusoidal()), head=Tied())


def low_rank_encoders() -> Iterator[tuple[str, Any]]:
    for name, compress in COMPRESSED.items():
        yield name, mixer(name, Linformer(HEADS, LENGTH, 8, compress), Linformer(HEADS, LENGTH, 16, compress))
    layers = stack(Block((Linformer(HEADS, LENGTH, 9, LinearSlots("keys_values")), MLP(48))), times=2)
    yield "one projection for all layers", mixer("layerwise").replace(blocks=(Layerwise(layers),))
    yield "fourier", mixer("fourier", Fourier(), Fourier(), Attention(HEADS, position=Rotary()))


def low_rank_decoders() -> Iterator[tuple[str, Decoder]]:
    blocks = stack(Block((Attention(HEADS), MLP(48))), times=2)
    yield "projected embedding", Decoder("projected", VOCAB, DIM, blocks, ProjectedEmbedding(Sinusoidal()))


def low_rank_pairs() -> Iterator[tuple[str, EncoderDecoder]]:
    """Cross-attention to slots of a source that is read as slots."""
    for kind, compress in (("linear", LinearSlots("none")), ("pooled", PooledSlots())):
        source = mixer("source", Linformer(HEADS, 40, 8, compress)).replace(head=None)
        block = Block((Attention(HEADS), LinformerCross(HEADS, 40, 10, compress), MLP(48)))
        name = f"slots of a source, {kind}"
        yield name, EncoderDecoder(name, source, Decoder("target", VOCAB, DIM, stack(block, times=2)))
