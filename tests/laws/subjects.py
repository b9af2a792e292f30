"""What the laws are held against: every member, and every part by itself in a small model."""

from collections.abc import Iterator
from typing import Any

import torch
from sizes import ALIKE, DIM, HEADS, LENGTH, VOCAB, decoder
from sparse_subjects import sparse_decoders, sparse_encoders, sparse_pairs
from torch import Tensor, nn

from formers import (
    GLU,
    LSH,
    MEMBERS,
    MLP,
    ALiBi,
    Attention,
    Axial,
    Block,
    Blocks,
    Causal,
    Decoder,
    DistanceAware,
    Embedding,
    Encoder,
    EncoderDecoder,
    Learned,
    Parallel,
    PostNorm,
    Reversible,
    RMSNorm,
    Rotary,
    Routing,
    Shaw,
    SinkhornAttention,
    Sinusoidal,
    T5Buckets,
    Tied,
    TopBlocks,
    TransformerXL,
    Untied,
    Window,
    make,
    stack,
)

ABSOLUTE = {
    "sinusoidal": Sinusoidal(),
    "sinusoidal halves": Sinusoidal("halves"),
    "learned": Learned(LENGTH),
    "axial": Axial((4, 4, 5), (8, 8, 16)),
}
RELATIVE = {
    "shaw": Shaw(3),
    "transformer-xl": TransformerXL(),
    "rotary": Rotary(),
    "rotary adjacent": Rotary(pairing="adjacent"),
    "distance-aware": DistanceAware(),
    "t5": T5Buckets(8, 12),
}
CAUSAL_ONLY = {"alibi": ALiBi()}
PATTERNS = {
    "window": Causal() & Window(5),
    "blocks": Causal() & Blocks(6),
    "blocks and the one before": Causal() & Blocks(4, before=1),
    "window or blocks": Causal() & (Window(3) | Blocks(4)),
}


ROUTED = ALIKE.replace(heads=2, head_dim=8, select=Routing(4, 5))
BY_CONTENT = {
    "strict hashing": ALIKE.replace(select=LSH(4, 2, (2, 4), strict=True)),
    "half routed": Parallel((Attention(2, head_dim=8, pattern=Causal() & Window(5)), ROUTED)),
    "top blocks": Attention(HEADS, position=Rotary(), select=TopBlocks(4, 2)),
    "top blocks shaw": Attention(HEADS, kv_heads=2, position=Shaw(3), select=TopBlocks(3, 1)),
}
REVERSIBLE = stack(Block((ALIKE, MLP(48, chunk=7))), times=2)


def decoder_parts() -> Iterator[tuple[str, Decoder]]:
    for name, position in ABSOLUTE.items():
        yield name, decoder(name, Attention(HEADS), Embedding(position))
    for name, relative in (RELATIVE | CAUSAL_ONLY).items():
        yield name, decoder(name, Attention(HEADS, position=relative))
    for name, pattern in PATTERNS.items():
        yield name, decoder(name, Attention(HEADS, pattern=pattern, position=Rotary()))
        yield f"{name} shaw", decoder(name, Attention(HEADS, pattern=pattern, position=Shaw(2)))
    yield "grouped heads", decoder("grouped heads", Attention(HEADS, kv_heads=2, position=Rotary()))
    yield "one key head", decoder("one key head", Attention(HEADS, kv_heads=1, position=ALiBi()))
    yield "wide heads", decoder("wide heads", Attention(3, head_dim=10, position=T5Buckets(8, 12)))
    for name, attention in BY_CONTENT.items():
        yield name, decoder(name, attention)
    sinkhorn = SinkhornAttention(HEADS, block=4, iterations=3)
    yield "sinkhorn", decoder("sinkhorn", sinkhorn, Embedding(Sinusoidal()))
    yield "reversible", Decoder("reversible", VOCAB, DIM, (Reversible(REVERSIBLE),), head=Untied())
    yield "reversible mean", Decoder("reversible mean", VOCAB, DIM, (Reversible(REVERSIBLE, "mean"),))
    block = Block((GLU(24), Attention(HEADS, position=Rotary()), GLU(24)), PostNorm(RMSNorm()))
    yield "macaron", Decoder("macaron", VOCAB, DIM, stack(block, times=2))


def encoder_parts() -> Iterator[tuple[str, Encoder]]:
    for name, position in ABSOLUTE.items():
        block = Block((Attention(HEADS), MLP(48)))
        yield name, Encoder(name, VOCAB, DIM, stack(block, times=2), Embedding(position), head=Tied())
    for name, relative in RELATIVE.items():
        block = Block((Attention(HEADS, position=relative), MLP(48)))
        yield name, Encoder(name, VOCAB, DIM, stack(block, times=2), head=Tied())
    for name, attention in encoder_mixers():
        yield (
            name,
            Encoder(
                name, VOCAB, DIM, stack(Block((attention, MLP(48))), times=2), Embedding(Sinusoidal()), head=Tied()
            ),
        )
    block = Block((Attention(HEADS, pattern=Window(4), position=Rotary()), MLP(48)))
    yield "local", Encoder("local", VOCAB, DIM, stack(block, times=2), head=Tied())


def encoder_mixers() -> Iterator[tuple[str, Any]]:
    yield "hashing", ALIKE.replace(select=LSH(4, 2, 4, plain_below=0))
    yield "routing", ALIKE.replace(select=Routing(3, balanced=True))
    yield "routing apart", Attention(HEADS, select=Routing(3, balanced=True, joint=False))
    yield "top blocks", Attention(HEADS, position=Rotary(), select=TopBlocks(3, 2))
    yield "sinkhorn", SinkhornAttention(HEADS, block=4, iterations=3)
    yield "sortcut", SinkhornAttention(HEADS, block=4, iterations=3, cut=2)


SMALL = {name: make(name, **member.small) for name, member in MEMBERS.items()}
SPECS: dict[str, Any] = SMALL | {f"decoder with {n}": s for n, s in decoder_parts()}
SPECS |= {f"encoder with {n}": s for n, s in encoder_parts()}
SPECS |= {f"decoder with {n}": s for n, s in sparse_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in sparse_encoders()}
SPECS |= dict(sparse_pairs())
DECODERS = [name for name, spec in SPECS.items() if isinstance(spec, (Decoder, EncoderDecoder))]
ENCODERS = [name for name, spec in SPECS.items() if isinstance(spec, Encoder)]
REVERSIBLES = [name for name in DECODERS if "Reversible(" in repr(SPECS[name])]
SORTED = [name for name in DECODERS if "LSH(" in repr(SPECS[name]) or "Routing(" in repr(SPECS[name])]
LIMITED = [name for name, spec in SPECS.items() if spec.max_length is not None]


def build(spec: Any, seed: int = 0) -> nn.Module:
    """A small model in float64 whose parameters are all awake: none is left at a 0 or 1 that hides a fault."""
    torch.manual_seed(seed)
    model = spec.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


class Stream:
    """The predicted side of any model: a decoder itself, or the target side over a fixed source."""

    def __init__(self, model: nn.Module, batch: int) -> None:
        self.model = model
        self.paired = isinstance(model.spec, EncoderDecoder)
        self.source = tokens(1, 9, seed=5).expand(batch, -1)

    def begin(self, rows: slice = slice(None)) -> Any:
        return self.model.start(self.source[rows]) if self.paired else None

    def whole(self, inputs: Tensor, mask: Tensor | None = None, rows: slice = slice(None)) -> Tensor:
        """Logits of one pass."""
        if self.paired:
            return self.model(self.source[rows], inputs, mask=mask).logits
        return self.model(inputs, mask=mask).logits

    def piece(self, inputs: Tensor, state: Any, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        out = self.model.step(inputs, state, mask=mask, logits_at=slice(None))
        return out.logits, out.state

    @property
    def embedding(self) -> nn.Module:
        return (self.model.target if self.paired else self.model).embedding
