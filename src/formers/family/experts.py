"""Mixtures of experts: the Switch Transformer, as a language model and as the encoder-decoder of its paper."""

from formers.attention import Attention, CrossAttention, Dense
from formers.block import Block
from formers.call import Layer
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.experts import Switch, Truncated
from formers.family.originals import SMALL
from formers.family.registry import member
from formers.feedforward import MLP, FeedForward
from formers.model import Decoder, Encoder
from formers.norm import RMSNorm
from formers.position import Learned, T5Buckets
from formers.residual import PreNorm, Residual

FEW = {"experts": 3}


@member("Switch Transformer", paper="arXiv:2101.03961", year=2021, cost="n²", small=SMALL | FEW | {"length": 64})
def switch(
    vocab: int = 50_257,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 1024,
    experts: int = 8,
    every: int = 2,
    top_k: int = 1,
    capacity: float | None = 1.25,
    eval_capacity: float | None = None,
    balance: float = 0.01,
    jitter: float = 0.01,
    dropout: float = 0.1,
    expert_dropout: float = 0.0,
) -> Decoder:
    """GPT-2 with a Switch layer in place of every second feed-forward, and the paper's small initialisation.

    A `gpt2` of these sizes does the same work for each token, and is what it can be distilled into.
    """
    dense = MLP(hidden or 4 * dim, "gelu_tanh")
    expert = dense.replace(dropout=expert_dropout)
    sparse = Switch(expert, experts, top_k, capacity, eval_capacity, balance, jitter)
    attention = (Attention(heads, dropout=dropout),)
    blocks = alternating(attention, dense, sparse, PreNorm(dropout=dropout), depth, every)
    embedding = Embedding(Learned(length), dropout=dropout)
    return Decoder("switch", vocab, dim, blocks, embedding, init=Truncated())


@member(
    "Switch Transformer, encoder-decoder",
    paper="arXiv:2101.03961",
    year=2021,
    cost="n²",
    small=SMALL | FEW | {"head_dim": 6},
)
def switch_encoder_decoder(
    vocab: int = 32_128,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    head_dim: int = 64,
    hidden: int = 3072,
    experts: int = 8,
    every: int = 2,
    capacity: float | None = 1.25,
    eval_capacity: float | None = 2.0,
    balance: float = 0.01,
    jitter: float = 0.01,
    dropout: float = 0.1,
    expert_dropout: float = 0.1,
) -> EncoderDecoder:
    """The paper's T5 with a Switch layer in place of every second feed-forward. The defaults are Switch-Base's.

    eval_capacity limits the encoder alone; the decoder has no limit in evaluation, so that steps equal one pass.
    """
    norm, position, dense = RMSNorm(eps=1e-6), T5Buckets(), MLP(hidden, "relu", bias=False, dropout=dropout)
    projection, residual = Dense(bias=False), PreNorm(norm, dropout)
    attention = Attention(heads, None, head_dim, None, position, projection, scale=1.0, dropout=dropout)
    cross = CrossAttention(heads, None, head_dim, projection, dropout)
    expert = dense.replace(dropout=expert_dropout)
    reads = Switch(expert, experts, 1, capacity, eval_capacity, balance, jitter)
    writes = reads.replace(eval_capacity=None)
    source = alternating((attention,), dense, reads, residual, depth, every)
    target = alternating((attention, cross), dense, writes, residual, depth, every)
    embedding, init, name = Embedding(scaled=True, dropout=dropout), Truncated(), "switch_encoder_decoder"
    return EncoderDecoder(
        name,
        Encoder(f"{name}.source", vocab, dim, source, embedding, norm, init=init),
        Decoder(f"{name}.target", vocab, dim, target, embedding, norm, init=init),
    )


def alternating(
    before: tuple[Layer, ...], dense: FeedForward, sparse: Switch, residual: Residual, depth: int, every: int
) -> tuple[Layer, ...]:
    """Blocks of what stands before a feed-forward, and of the feed-forward: each `every`-th is the sparse one."""
    if every < 1:
        raise ConfigError(f"every {every}th feed-forward cannot be of experts: every=2")
    kinds = [sparse if (i + 1) % every == 0 else dense for i in range(depth)]
    return tuple(Block((*before, kind), residual) for kind in kinds)
