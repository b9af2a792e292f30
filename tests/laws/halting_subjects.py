"""Rules that learn where to halt, in small models: each distribution, oracles of both kinds, and mixed training."""

from collections.abc import Iterator

from sizes import DIM, HEADS, VOCAB

from formers import MLP, Attention, Block, CrossAttention, Decoder, Encoder, EncoderDecoder, Exits, Rotary, stack
from formers.exits.halting import GeometricHalting, LikelihoodOracle, MultinomialHalting, SequenceHalting

DEPTH = 3


def halting_decoders() -> Iterator[tuple[str, Decoder]]:
    blocks = stack(Block((Attention(HEADS, position=Rotary()), MLP(24))), times=DEPTH)
    depths = {
        "halting, thresholds": Exits(blocks, GeometricHalting(LikelihoodOracle(0.1, 2.0), 0.5, (0.6, 0.4))),
        "halting, multinomial": Exits(blocks, MultinomialHalting(), weights=None),
    }
    for name, depth in depths.items():
        yield name, Decoder(name, VOCAB, DIM, (depth,))


def halting_pairs() -> Iterator[tuple[str, EncoderDecoder]]:
    attention, feed_forward = Attention(HEADS, position=Rotary()), MLP(24)
    source = Encoder("source", VOCAB, DIM, stack(Block((attention, feed_forward)), times=1))
    blocks = stack(Block((attention, CrossAttention(HEADS), feed_forward)), times=DEPTH)
    target = Decoder("target", VOCAB, DIM, (Exits(blocks, SequenceHalting()),))
    yield "halting of a sequence", EncoderDecoder("halting of a sequence", source, target)
