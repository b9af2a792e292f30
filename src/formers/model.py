"""Models: an embedding, a depth of blocks, a head. Assembly, nothing else."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from formers.block import StackLayer, chain_problems
from formers.call import Call, Encoded, Layer
from formers.embedding import Embedding
from formers.head import Head, Pooler, Tied, head_of
from formers.init import Init, Normal
from formers.norm import LayerNorm, Norm
from formers.output import AtExits, End, ModelState, Output, StreamLoss
from formers.spec.check import check
from formers.spec.codec import to_json
from formers.spec.core import Site, Spec, marks_read, parts_within
from formers.tokens import At, chosen, place, require_read, seen_after

EVERY = slice(None)


class TokenModel(Spec):
    """What decoders and encoders share.

    name: what to call it in messages. vocab: number of token ids. dim: width of the residual stream.
    blocks: the depth. norm: after the last block. init: how parameters begin.
    """

    name: str
    vocab: int
    dim: int
    blocks: tuple[Layer, ...]
    embedding: Embedding = Embedding()
    norm: Norm | None = LayerNorm()
    head: Head | None = Tied()
    init: Init = Normal()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.vocab < 1:
            yield f"a vocabulary of {self.vocab} tokens holds nothing", "vocab=257"
        if self.dim < 1:
            yield f"a stream {self.dim} wide carries nothing", "dim=256"
        if not self.blocks:
            yield "a model without blocks only looks up its embedding", "blocks=stack(Block((...)), times=2)"
        carried = [part for part in parts_within(self.blocks) if part.carries]
        if self.embedding.position is not None and carried:
            what = (
                f"{self.embedding.position!r} tells absolute places, and {type(carried[0]).__name__} brings what came"
            )
            yield f"{what} before without end: this wants relative ones", "embedding=Embedding()"
        yield from chain_problems(self.blocks, self.dim, self.dim)
        last = [part for part in parts_within(self.blocks) if isinstance(part, Layer) and part.comes_last]
        if len(last) > sum(block.comes_last for block in self.blocks[-1:]):
            name = type(last[0]).__name__
            yield (
                f"the model reads what {name} puts out, so nothing comes behind or around it",
                f"blocks=({name}(...),)",
            )
        if self.out_dim != self.dim and self.head is not None and self.head.tied:
            what = f"the depth puts out {self.out_dim} numbers for each token, and {self.head!r} reads {self.dim}"
            yield what, "head=Untied()"
        if self.embedding.tables > 1 and self.head is not None and self.head.tied:
            what = f"{self.head!r} reads the table of token vectors, and there are {self.embedding.tables} of them"
            yield what, "head=Untied()"

    @property
    def max_length(self) -> int | None:
        """How many positions there are, by the embedding and by the layers; None: any number."""
        limits = [part.max_length for part in parts_within(self.blocks) if isinstance(part, Layer)]
        limits += [self.embedding.position.max_length] if self.embedding.position else []
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def out_dim(self) -> int:
        """The width of what the depth puts out, which is what the last norm and the head read."""
        return self.blocks[-1].out_dim(self.dim) if self.blocks else self.dim

    @property
    def site(self) -> Site:
        return Site(dim=self.dim, vocab=self.vocab)

    def inside(self, site: Site) -> Site:
        return self.site.replace(streaming=site.streaming, encoder=site.encoder, path=site.path)

    def to_json(self) -> str:
        """This spec as JSON, read back by `formers.spec.from_json`."""
        return to_json(self)

    def build(self, site: Site | None = None, *, streaming: bool = False) -> "TokenLayer":
        """The model, checked first. streaming: demand that decoding step by step equals one pass, or refuse.

        Raises ConfigError with everything that is wrong, before any parameter exists.
        """
        site = site or self.site.replace(streaming=streaming)
        check(self, site, self.name)
        model = TokenLayer(self, self.inside(site))
        self.init.apply(model, self.dim)
        return model


class Decoder(TokenModel):
    """A causal language model: no output sees a later token."""

    def inside(self, site: Site) -> Site:
        return super().inside(site).replace(causal=True)


class Encoder(TokenModel):
    """Sees the whole input at once. pooler: classes of the whole input, from its first token."""

    head: Head | None = None
    pooler: Pooler | None = None

    def inside(self, site: Site) -> Site:
        """It is run once, whatever is decoded from it, and has no encoder of its own."""
        return super().inside(site).replace(streaming=False, encoder=False)


class TokenLayer(nn.Module):
    """A Decoder or an Encoder, built."""

    def __init__(self, spec: TokenModel, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.marks = marks_read(spec)
        self.embedding = spec.embedding.build(site)
        self.stack = StackLayer(spec.blocks, site)
        out = site.replace(dim=spec.out_dim)
        self.norm = spec.norm.build(out) if spec.norm else None
        self.head = spec.head.build(out) if spec.head else None
        pooler = getattr(spec, "pooler", None)
        self.pooler = pooler.build(out) if pooler else None

    def forward(
        self,
        tokens: Tensor,
        state: ModelState | None = None,
        *,
        mask: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        logits_at: At = EVERY,
        encoded: Encoded | None = None,
        seed: int = 0,
        remember: bool = True,
        loss: StreamLoss | None = None,
        retrieved: Tensor | None = None,
    ) -> Output:
        """tokens (B, T) int64; state: of an earlier call that this one continues.

        mask: (B, T) bool, False at padding, which may stand anywhere. marks: name -> (B, T), such as "segment", of those
        that its parts read.
        logits_at: the positions to predict at: a slice, a bool mask (B, T) -> (N, V), or None for none.
        encoded: an encoder's output, for cross-attention. seed: of choices that are random but repeatable.
        remember: False leaves the state out, and all that layers would keep for it. loss: works out Output.nats from
        what would be predicted from at `logits_at`, in place of logits. retrieved: (B, T, k) int64, tokens that were found
        for each place, -1 for none, for a model with a `RetrievalGate`.
        """
        seen = 0 if state is None else state.seen
        require_read(marks or {}, self.marks)
        at = place(tokens, seen, mask, marks)
        table = None if retrieved is None else self.embedding.tokens.weight
        call = Call(at, encoded, seed, remember=remember, retrieved=retrieved, table=table)
        head = head_of(self.head, call)
        read = self.read if head is self.head else functools.partial(self.read, head=head)
        call = replace(call, read=read)
        out = self.stack(self.embedding(tokens, call), call, None if state is None else state.blocks)
        after = ModelState(seen_after(seen, at), out.state) if remember else None
        ends = getattr(self.stack.blocks[-1], "end", None)
        end = None if ends is None or head is None or logits_at is None else ends(out, call)
        if loss is not None:
            if logits_at is None:
                raise ValueError("a loss was asked for at logits_at=None, nowhere: leave one of the two out")
            stream, way = (out.y, read) if end is None else (end.stream, end.read)
            nats = loss(chosen(stream, logits_at), way, self._readers())
            early = at_exits(end, logits_at, functools.partial(loss, parameters=self._readers()), loss)
            return Output(None, None, after, out.losses, None, out.records, nats, early)
        hidden = out.y if self.norm is None else self.norm(out.y)
        logits = None
        if end is not None and end.read is not read and logits_at is not None:
            logits = end.read(chosen(end.stream, logits_at))
        elif head is not None and logits_at is not None:
            logits = head(chosen(hidden, logits_at), self.embedding.tokens.weight)
        pooled = self.pooler(hidden) if self.pooler is not None else None
        early = at_exits(end, logits_at, lambda stream, way: way(stream))
        return Output(logits, hidden, after, out.losses, pooled, out.records, None, early)

    def read(self, hidden: Tensor, head: nn.Module | None = None) -> Tensor:
        """Logits (..., V) of hidden states (..., M) as any block leaves them, for layers that may stop early.

        head: one that was drawn for a call, in place of the model's own.
        """
        head = self.head if head is None else head
        if head is None:
            raise ValueError("logits are asked for, and this model has no head: give it one")
        logits: Tensor = head(hidden if self.norm is None else self.norm(hidden), self.embedding.tokens.weight)
        return logits

    def _readers(self) -> list[Tensor]:
        """The parameters that `read` may use, each once."""
        last = self.stack.blocks[-1]
        parts = [part for part in (self.norm, self.head, getattr(last, "heads", None)) if part is not None]
        found: list[Tensor] = [self.embedding.tokens.weight]
        found += [parameter for part in parts for parameter in part.parameters()]
        return list(dict.fromkeys(found))

    def step(
        self,
        tokens: Tensor,
        state: ModelState | None,
        *,
        mask: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        logits_at: At = slice(-1, None),
        seed: int = 0,
        retrieved: Tensor | None = None,
    ) -> Output:
        """Continue a stream by tokens (B, T); the same method as an encoder-decoder's."""
        return self(tokens, state, mask=mask, marks=marks, logits_at=logits_at, seed=seed, retrieved=retrieved)


def at_exits(
    end: End | None,
    at: At,
    find: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
    loss: StreamLoss | None = None,
) -> AtExits | None:
    """What `find` makes of the exits before the end of a depth, at the places to predict at, and how `loss` judges all."""
    if end is None or end.weights is None or at is None:
        return None
    found = tuple(find(chosen(stream, at), way) for stream, way in end.early)
    judged: tuple[tuple[Tensor, Tensor], ...] = ()
    if loss is not None and end.halts is not None:
        judged = tuple(loss.judge(chosen(stream, at), way) for stream, way in (*end.early, (end.stream, end.read)))
    return AtExits(found, end.weights, end.halts, judged)


def on_meta(spec: Any) -> Any:
    """The model of a spec on the `meta` device, in evaluation mode: it says what there is, and holds nothing."""
    with torch.device("meta"):
        return spec.build().eval()


def parameter_count(model: nn.Module) -> int:
    """How many numbers a model learns; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
