"""Sparse parts by themselves in small models: projections, feed-forwards, heads, recurrence, Terraformer's positions."""

from collections.abc import Iterator

from sizes import ALIKE, DIM, HEADS, LENGTH, VOCAB, decoder

from formers import (
    LSH,
    MEMBERS,
    MLP,
    Attention,
    AveragedQK,
    Block,
    BlockFF,
    Convolutional,
    CrossAttention,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    FixedBase,
    Infinite,
    LayerNorm,
    LearnedLowRank,
    LearnedSinusoidal,
    Linear,
    LocalHead,
    LowRank,
    LowRankHead,
    Modular,
    MultConv,
    Multiplicative,
    MultiplicativeHead,
    MultiplicativeModular,
    Parallel,
    Reversible,
    Rotary,
    SinkhornAttention,
    Sinusoidal,
    SparseFF,
    SparseQueries,
    SRUBranch,
    SwitchFF,
    Tied,
    TimeBin,
    make,
    stack,
)

SPARSE = {
    "mult conv": MultConv(),
    "mult conv with outputs": MultConv(8, values="fixed", output="multconv"),
    "mult conv of old": MultConv(8, length=4, share_qk="same", values="original", output="conv"),
    "multiplicative": Multiplicative(8),
    "multiplicative modular": MultiplicativeModular(),
    "modular": Modular(8, width=3),
    "convolutional": Convolutional(8, length=3, width=3),
    "low rank": LowRank(6),
}
HASHED = {
    "mult conv, hashed": MultConv(share_qk="unit"),
    "mult conv averaged, hashed": MultConv(8, share_qk="average"),
    "dense averaged, hashed": AveragedQK(),
}
HEADS_OF = {
    "multiplicative head": MultiplicativeHead(3),
    "low-rank head": LowRankHead(6),
    "local head": LocalHead(4, 3),
}
FEED_FORWARDS = {
    "sparse feed-forward": SparseFF(48, 8, 4),
    "sparse feed-forward in chunks, weighted": SparseFF(48, 8, 4, weighted=True, chunk=7),
    "block feed-forward": BlockFF(48, 4),
    "switch feed-forward": SwitchFF(48, 4),
    "recurrence": SRUBranch(2, 6),
}
POSITIONS = {
    "learned sinusoids": LearnedSinusoidal(LENGTH),
    "low-rank table": LearnedLowRank(LENGTH, 4),
    "fixed base": FixedBase(),
    "infinite": Infinite(),
    "time bin": TimeBin(),
}


def sparse_decoders() -> Iterator[tuple[str, Decoder]]:
    for name, projection in SPARSE.items():
        yield name, decoder(name, Attention(HEADS, projection=projection, position=Rotary()))
    for name, projection in HASHED.items():
        yield name, decoder(name, ALIKE.replace(projection=projection, select=LSH(4, 2, (2, 4), strict=True)))
    for name, head in HEADS_OF.items():
        yield name, decoder(name, Attention(HEADS), Embedding(Sinusoidal()), head=head)
    for name, layer in FEED_FORWARDS.items():
        block = Block((Attention(HEADS, position=Rotary()), layer))
        yield name, Decoder(name, VOCAB, DIM, stack(block, times=2))
    for name, position in POSITIONS.items():
        yield name, decoder(name, Attention(HEADS), Embedding(position))
    sinkhorn = SinkhornAttention(HEADS, block=4, iterations=3, projection=MultConv())
    yield "sinkhorn, mult conv", decoder("sinkhorn, mult conv", sinkhorn, Embedding(Sinusoidal()))
    attention = Attention(HEADS, projection=MultConv(output="mult"), heads_at_once=2)
    blocks = stack(Block((attention, MLP(48, chunk=7))), times=2)
    yield "reversible, mult conv", Decoder("reversible", VOCAB, DIM, (Reversible(blocks),), head=MultiplicativeHead(3))
    beside = Parallel((MLP(48), SRUBranch(2, 8)), LayerNorm())
    recurrent = stack(Block((Attention(HEADS), beside)), times=2)
    yield "recurrence beside", Decoder("recurrence beside", VOCAB, DIM, recurrent)
    again = Reversible(recurrent[:1], "mean", "given"), Linear(), Reversible(recurrent[1:], "mean")
    yield "streams given", Decoder("streams given", VOCAB, DIM, (Reversible(recurrent), *again))


def sparse_encoders() -> Iterator[tuple[str, Encoder]]:
    for name, projection in SPARSE.items():
        block = Block((Attention(HEADS, projection=projection, position=Rotary()), MLP(48)))
        yield name, Encoder(name, VOCAB, DIM, stack(block, times=2), head=Tied())
    for name, layer in FEED_FORWARDS.items():
        block = Block((Attention(HEADS, position=Rotary()), layer))
        yield name, Encoder(name, VOCAB, DIM, stack(block, times=2), head=Tied())


def sparse_pairs() -> Iterator[tuple[str, EncoderDecoder]]:
    """Cross-attention with sparse queries; Terraformer with one stream between its sides, and with forgetting."""
    small = MEMBERS["terraformer"].small
    yield "terraformer, one stream", make("terraformer", **small | {"two_streams": False})
    yield "terraformer, forgetting", make("terraformer", **small | {"depth": 3, "forget": 1, "encoder_swaps": 1})
    block = Block((Attention(HEADS, projection=MultConv()), MLP(48)))
    source = Encoder("source", VOCAB, DIM, stack(block, times=2), Embedding(Sinusoidal()))
    for output in ("none", "multconv"):
        cross = CrossAttention(HEADS, projection=SparseQueries(8, output=output))
        block = Block((Attention(HEADS, projection=MultConv()), cross, MLP(48)))
        target = Decoder("target", VOCAB, DIM, stack(block, times=2), head=MultiplicativeHead(3))
        name = f"sparse cross-attention, {output}"
        yield name, EncoderDecoder(name, source, target)
