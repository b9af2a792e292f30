"""Depths that tokens leave early, in small models: each measure of confidence, and classifiers of the exits' own."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import (
    MLP,
    Attention,
    Block,
    Causal,
    Decay,
    Decoder,
    Exits,
    Rotary,
    Saturation,
    SoftmaxResponse,
    Untied,
    Window,
    stack,
)


def exit_decoders() -> Iterator[tuple[str, Decoder]]:
    blocks = stack(Block((Attention(HEADS, position=Rotary()), MLP(24))), times=3)
    window = stack(Block((Attention(HEADS, pattern=Causal() & Window(5), position=Rotary()), MLP(24))), times=3)
    depths = {
        "exits": Exits(blocks, SoftmaxResponse(0.03)),
        "exits, decaying": Exits(window, SoftmaxResponse(0.01, Decay(4.0, 40))),
        "exits, saturation": Exits(window, Saturation(0.6)),
        "exits, separate": Exits(blocks, SoftmaxResponse(0.03), heads=Untied()),
    }
    for name, depth in depths.items():
        yield name, Decoder(name, VOCAB, DIM, (depth,))
