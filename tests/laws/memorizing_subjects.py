"""Memorizing attention by itself in small models. Segments hold the nine tokens that are compared with finite differences:
what is stored has no gradient, and finite differences would meet it."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB, decoder

from formers import (
    MLP,
    ApproximateSearch,
    Block,
    Causal,
    Decoder,
    MemorizingAttention,
    Reversible,
    Rotary,
    Shaw,
    Window,
    stack,
)


def memorizing_decoders() -> Iterator[tuple[str, Decoder]]:
    layer = MemorizingAttention(HEADS, segment=9, memory=11, top_k=4)
    yield "memorizing", decoder("memorizing", layer.replace(position=Rotary(), search=ApproximateSearch()))
    plain = layer.replace(pattern=Causal() & Window(3), position=Shaw(2), unit=False, head_dim=6, top_k=11)
    yield "memorizing, plain shaw", decoder("memorizing, plain shaw", plain)
    blocks = stack(Block((layer, MLP(48, chunk=7))), times=2)
    yield "reversible, memorizing", Decoder("reversible, memorizing", VOCAB, DIM, (Reversible(blocks, "mean"),))
