"""What the laws are held against: every member, and every part by itself in a small model."""

from collections.abc import Iterator
from typing import Any

import torch
from adaptive_subjects import universal_decoders, universal_encoders, universal_pairs
from compressive_subjects import compressive_decoders
from exit_subjects import exit_decoders
from expert_subjects import expert_decoders, expert_encoders
from factorised_subjects import factorised_decoders, factorised_encoders
from gated_subjects import gated_decoders, gated_encoders
from halting_subjects import halting_decoders, halting_pairs
from kernel_subjects import kernel_decoders, kernel_encoders, kernel_pairs
from low_rank_subjects import low_rank_decoders, low_rank_encoders, low_rank_pairs
from memorizing_subjects import memorizing_decoders
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
    ByHead,
    Canvas,
    Causal,
    ChannelEmbedding,
    Coordinates,
    Decoder,
    Dilated,
    DistanceAware,
    Embedding,
    Encoder,
    EncoderDecoder,
    Feedback,
    Global,
    GlobalLocal,
    GlobalLocalAttention,
    HeadSpans,
    KeepInputs,
    Learned,
    Local1D,
    Local2D,
    LongformerAttention,
    Parallel,
    PostNorm,
    PublishedBlocks,
    QuerySpans,
    RandomBlocks,
    RelativeKeys,
    RelativeLabels,
    RetrievalGate,
    Reversible,
    RMSNorm,
    Rotary,
    Routing,
    Segments,
    Shaw,
    SinkhornAttention,
    Sinusoidal,
    SpanAttention,
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
    "coordinates": Coordinates(Canvas(9, 4, 2, (4, 3))),
}
RELATIVE = {
    "shaw": Shaw(3),
    "relative keys": RelativeKeys(4),
    "transformer-xl": TransformerXL(),
    "transformer-xl, clamped": TransformerXL(5),
    "rotary": Rotary(),
    "rotary adjacent": Rotary(pairing="adjacent"),
    "distance-aware": DistanceAware(),
    "t5": T5Buckets(8, 12),
}
CAUSAL_ONLY = {"alibi": ALiBi()}
PATTERNS = {
    "window": Causal() & Window(5),
    "blocks": Causal() & Blocks(6),
    "segments": Causal() & Segments(4, 6),
    "dilated heads": Causal() & ByHead((Window(4), Dilated(3, 4))),
    "blocks and the one before": Causal() & Blocks(4, before=1),
    "window or blocks": Causal() & (Window(3) | Blocks(4)),
    "random blocks": Causal() & (Blocks(4) | RandomBlocks(4, 2, HEADS, among="earlier", before=0, first=0)),
    "random blocks of a length": Causal()
    & (Blocks(3, 1) | Global(3) | RandomBlocks(3, 1, 2, length=20, among="earlier")),
    "local blocks": Causal() & Local1D(4, 6),
    "local blocks of an image": Causal() & Local2D(Canvas(6, 5, 2, (3, 2)), 2, 1),
}


ROUTED = ALIKE.replace(heads=2, head_dim=8, select=Routing(4, 5))
BY_CONTENT = {
    "strict hashing": ALIKE.replace(select=LSH(4, 2, (2, 4), strict=True)),
    "half routed": Parallel((Attention(2, head_dim=8, pattern=Causal() & Window(5)), ROUTED)),
    "top blocks": Attention(HEADS, position=Rotary(), select=TopBlocks(4, 2)),
    "top blocks shaw": Attention(HEADS, kv_heads=2, position=Shaw(3), select=TopBlocks(3, 1)),
}
SPANS = {  # long enough for heads to differ in the blocks that they reach
    "spans": SpanAttention(HEADS, 100, 50, HeadSpans(0.14), position=RelativeKeys(90)),
    "query spans": SpanAttention(HEADS, 100, 30, QuerySpans(0.3), position=Rotary()),
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
    kept = Attention(HEADS, kv_heads=2, pattern=PATTERNS["segments"], position=Rotary(), memory=KeepInputs())
    yield "kept inputs", decoder("kept inputs", kept)
    yield "wide heads", decoder("wide heads", Attention(3, head_dim=10, position=T5Buckets(8, 12)))
    for name, attention in (BY_CONTENT | SPANS).items():
        yield name, decoder(name, attention)
    sinkhorn = SinkhornAttention(HEADS, block=4, iterations=3)
    yield "sinkhorn", decoder("sinkhorn", sinkhorn, Embedding(Sinusoidal()))
    yield "reversible", Decoder("reversible", VOCAB, DIM, (Reversible(REVERSIBLE),), head=Untied())
    yield "reversible mean", Decoder("reversible mean", VOCAB, DIM, (Reversible(REVERSIBLE, "mean"),))
    channels = ChannelEmbedding(Coordinates(Canvas(4, 6, 3)), channels=3)
    yield "channels", decoder("channels", Attention(HEADS), channels, head=Untied())
    feedback = Feedback(2, HEADS, GLU(24), reach=30, residual=PostNorm(RMSNorm()))
    yield "feedback", Decoder("feedback", VOCAB, DIM, (feedback,))
    block = Block((Attention(HEADS, position=Rotary()), MLP(48)))
    gated = (*stack(block, times=2), RetrievalGate(RMSNorm()))
    yield "retrieval gate", Decoder("retrieval gate", VOCAB, DIM, gated, norm=None)
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
    yield "local blocks of an image", Attention(HEADS, pattern=Local2D(Canvas(6, 5, 2, (3, 2)), 2, 1))
    yield "spans", SpanAttention(HEADS, 9, 4, HeadSpans(0.5), position=RelativeKeys(9))
    yield "random blocks", Attention(HEADS, pattern=Blocks(3, 1, 1) | RandomBlocks(3, 2, HEADS, length=30))
    yield "published blocks", Attention(HEADS, pattern=Blocks(2, 1, 1) | PublishedBlocks(2, 2, HEADS, length=40))
    hard = GlobalLocal(3, ("g2l", "l2g"))
    yield "hard global", GlobalLocalAttention(HEADS, hard, RelativeLabels(2))
    by_head = ByHead((Window(3), Dilated(2, 3)))
    yield "longformer by head", LongformerAttention(HEADS, by_head, position=Rotary())
    yield "longformer shaw", LongformerAttention(HEADS, Window(3), position=Shaw(2), head_dim=6)
    yield "separate global", GlobalLocalAttention(HEADS, GlobalLocal(4), RelativeLabels(3), separate=True)


SMALL = {name: make(name, **member.small) for name, member in MEMBERS.items()}
SPECS: dict[str, Any] = SMALL | {f"decoder with {n}": s for n, s in decoder_parts()}
SPECS |= {f"encoder with {n}": s for n, s in encoder_parts()}
SPECS |= {f"decoder with {n}": s for n, s in sparse_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in sparse_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in factorised_decoders()}
SPECS |= {f"decoder with {n}": s for n, s in compressive_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in factorised_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in kernel_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in kernel_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in low_rank_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in low_rank_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in memorizing_decoders()}
SPECS |= {f"decoder with {n}": s for n, s in exit_decoders()}
SPECS |= {f"decoder with {n}": s for n, s in expert_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in expert_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in gated_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in gated_encoders()}
SPECS |= {f"decoder with {n}": s for n, s in halting_decoders()} | dict(halting_pairs())
SPECS |= dict(sparse_pairs()) | dict(low_rank_pairs()) | dict(kernel_pairs())
SPECS |= {f"decoder with {n}": s for n, s in universal_decoders()}
SPECS |= {f"encoder with {n}": s for n, s in universal_encoders()} | dict(universal_pairs())
DECODERS = [name for name, spec in SPECS.items() if isinstance(spec, (Decoder, EncoderDecoder))]
ENCODERS = [name for name, spec in SPECS.items() if isinstance(spec, Encoder)]
REVERSIBLES = [name for name in DECODERS if "Reversible(" in repr(SPECS[name])]
SORTED = [name for name in DECODERS if any(kind in repr(SPECS[name]) for kind in ("LSH(", "Routing(", "Switch("))]
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


def sides(real: Tensor) -> dict[str, Tensor]:
    """Marks for a global and a long input, made of the mask (B, T) of real tokens: the first five tokens are global, or
    half of a short row, and the long ones belong to them in turn."""
    place, length = real.cumsum(1) - 1, real.sum(1, keepdim=True)
    ahead = (length // 2).clamp(max=5)
    of_long = torch.where(ahead > 0, (place - ahead) % ahead.clamp(min=1), -1)
    return {"global": (place < ahead).long(), "segment": torch.where(place < ahead, place, of_long)}


def marks_for(spec: Any, inputs: Tensor, mask: Tensor | None) -> dict[str, Tensor] | None:
    """The marks that a model reads. Those of single global tokens go by the ids, and padding has some too."""
    if "GlobalLocal(" in repr(spec):
        return sides(torch.ones_like(inputs, dtype=torch.bool) if mask is None else mask)
    return {"global": (inputs % 13 == 0).long()} if "LongformerAttention(" in repr(spec) else None


def retrieved_for(spec: Any, inputs: Tensor) -> dict[str, Tensor]:
    """What was found for each token, where a model reads it: three tokens, some of them missing, or none at all."""
    if "RetrievalGate(" not in repr(spec):
        return {}
    found = (inputs[..., None] * torch.tensor([7, 5, 3]) + torch.tensor([1, 4, 9])) % 53 - 13
    return {"retrieved": found.clamp(min=-1).masked_fill(inputs[..., None] % 5 == 2, -1)}


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
        given = retrieved_for(self.model.spec, inputs)
        return self.model(inputs, mask=mask, marks=marks_for(self.model.spec, inputs, mask), **given).logits

    def piece(self, inputs: Tensor, state: Any, mask: Tensor | None = None) -> tuple[Tensor, Any]:
        given = retrieved_for(self.model.spec, inputs)
        out = self.model.step(inputs, state, mask=mask, logits_at=slice(None), **given)
        return out.logits, out.state

    @property
    def embedding(self) -> nn.Module:
        return (self.model.target if self.paired else self.model).embedding
