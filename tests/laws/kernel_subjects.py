"""Feature maps by themselves in small models, with gates and positions, in both directions and across."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB, decoder

from formers import (
    MLP,
    ArcCosine,
    Block,
    Convolutional,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Hyperbolic,
    KernelAttention,
    KernelCrossAttention,
    Positive,
    RandomFourier,
    ReLUKernel,
    Rotary,
    Sinusoidal,
    SparseQueries,
    Tied,
    Trigonometric,
    stack,
)

FEATURES = {
    "independent positive features": Positive(10, orthogonal=False, redraw=None),
    "positive features of one length": Positive(10, lengths="sqrt"),
    "hyperbolic features": Hyperbolic(12),
    "relu kernel": ReLUKernel(10),
    "random fourier features": RandomFourier(12, pool=2),
    "arc-cosine features": ArcCosine(9, pool=2),
}


def kernel_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, features in FEATURES.items():
        yield name, decoder(name, KernelAttention(HEADS, features=features, position=Rotary()))
    gated = KernelAttention(HEADS, None, Positive(10), gate=True, projection=Convolutional(8, length=3, width=3))
    yield "gated positive features", decoder("gated positive features", gated)


def kernel_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, features in (FEATURES | {"trigonometric features": Trigonometric(24)}).items():
        blocks = stack(Block((KernelAttention(HEADS, features=features), MLP(48))), times=2)
        yield name, Encoder(name, VOCAB, DIM, blocks, Embedding(Sinusoidal()), head=Tied())


def kernel_pairs() -> Iterator[tuple[str, EncoderDecoder]]:
    reads = stack(Block((KernelAttention(HEADS, features=Positive(10)), MLP(48))), times=2)
    across = KernelCrossAttention(HEADS, features=Positive(10), projection=SparseQueries())
    writes = stack(Block((KernelAttention(HEADS, features=Positive(10)), across, MLP(48))), times=2)
    embedding = Embedding(Sinusoidal())
    yield (
        "pair with positive features across",
        EncoderDecoder(
            "pair",
            Encoder("pair.source", VOCAB, DIM, reads, embedding),
            Decoder("pair.target", VOCAB, DIM, writes, embedding),
        ),
    )
