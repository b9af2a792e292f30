"""Compressive memory by itself in small models: every compression, and positions that turn keys or add to scores."""

from collections.abc import Iterator

from sizes import HEADS, decoder

from formers import (
    ALiBi,
    Attention,
    CompressiveMemory,
    Decoder,
    DilatedCompression,
    MaxCompression,
    MeanCompression,
    MostUsedCompression,
    Rotary,
    Shaw,
)

REMEMBERING = {
    "means remembered": (CompressiveMemory(4, 4, 5, MeanCompression(2)), Rotary()),
    "maxima remembered": (CompressiveMemory(3, 6, 1, MaxCompression(3)), ALiBi()),
    "dilated convolutions remembered": (CompressiveMemory(6, 6, 4, DilatedCompression(2, 3)), Rotary()),
    "the most used remembered": (CompressiveMemory(4, 4, 3, MostUsedCompression(2)), Shaw(3)),
}


def compressive_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, (memory, position) in REMEMBERING.items():
        yield name, decoder(name, Attention(HEADS, kv_heads=2, memory=memory, position=position))
