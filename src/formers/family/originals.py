"""The models that the family began with: the 2017 Transformer, GPT, GPT-2, BERT, LLaMA."""

from formers.attention import Attention, CrossAttention, Dense
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.family.registry import member
from formers.feedforward import GLU, MLP
from formers.head import MaskedLM, Untied
from formers.init import Normal, Xavier
from formers.model import Decoder, Encoder
from formers.norm import LayerNorm, RMSNorm
from formers.position import Learned, Rotary, Sinusoidal
from formers.residual import PostNorm, PreNorm

SMALL = {"vocab": 40, "dim": 32, "depth": 2, "heads": 4, "hidden": 48}


@member("Transformer", paper="arXiv:1706.03762", year=2017, cost="n²", small=SMALL)
def transformer(
    vocab: int = 37_000, dim: int = 512, depth: int = 6, heads: int = 8, hidden: int = 2048, dropout: float = 0.1
) -> EncoderDecoder:
    """The vanilla encoder-decoder: post-norm without a last norm, sinusoids, one table for both sides and the head."""
    embedding = Embedding(Sinusoidal(), scaled=True, dropout=dropout)
    residual = PostNorm(dropout=dropout)
    feed_forward = MLP(hidden, "relu")
    reads = Block((Attention(heads), feed_forward), residual)
    writes = Block((Attention(heads), CrossAttention(heads), feed_forward), residual)
    source = Encoder("transformer.source", vocab, dim, stack(reads, times=depth), embedding, norm=None, init=Xavier())
    target = Decoder("transformer.target", vocab, dim, stack(writes, times=depth), embedding, norm=None, init=Xavier())
    return EncoderDecoder("transformer", source, target)


@member("GPT", paper="Radford et al. 2018", year=2018, cost="n²", small=SMALL | {"length": 64})
def gpt(
    vocab: int = 40_478,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 512,
    dropout: float = 0.1,
) -> Decoder:
    """The first GPT: a post-norm decoder with learned positions."""
    embedding = Embedding(Learned(length), dropout=dropout)
    sublayers = (Attention(heads, dropout=dropout), MLP(hidden or 4 * dim, "gelu_tanh"))
    blocks = stack(Block(sublayers, PostNorm(dropout=dropout)), times=depth)
    return Decoder("gpt", vocab, dim, blocks, embedding, norm=None)


@member("GPT-2", paper="Radford et al. 2019", year=2019, cost="n²", small=SMALL | {"length": 64})
def gpt2(
    vocab: int = 50_257,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 1024,
    dropout: float = 0.1,
    bias: bool = True,
) -> Decoder:
    """The pre-norm decoder that most later ones descend from; what joins the stream begins scaled down by depth."""
    norm = LayerNorm(bias=bias)
    attention = Attention(heads, projection=Dense(bias), dropout=dropout)
    block = Block((attention, MLP(hidden or 4 * dim, "gelu_tanh", bias)), PreNorm(norm, dropout))
    embedding = Embedding(Learned(length), dropout=dropout)
    init = Normal(depth_scaled=True)
    return Decoder("gpt2", vocab, dim, stack(block, times=depth), embedding, norm, init=init)


@member("BERT", paper="arXiv:1810.04805", year=2018, cost="n²", small=SMALL | {"length": 64})
def bert(
    vocab: int = 30_522,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int | None = None,
    length: int = 512,
    dropout: float = 0.1,
) -> Encoder:
    """A post-norm encoder that fills in masked tokens. Segments are given by the mark "segment"."""
    norm = LayerNorm(eps=1e-12)
    block = Block((Attention(heads, dropout=dropout), MLP(hidden or 4 * dim)), PostNorm(norm, dropout))
    embedding = Embedding(Learned(length), segments=2, norm=norm, dropout=dropout)
    return Encoder("bert", vocab, dim, stack(block, times=depth), embedding, norm=None, head=MaskedLM())


@member("LLaMA", paper="arXiv:2302.13971", year=2023, cost="n²", small=SMALL | {"kv_heads": 2})
def llama(
    vocab: int = 32_000,
    dim: int = 4096,
    depth: int = 32,
    heads: int = 32,
    kv_heads: int | None = None,
    hidden: int = 11_008,
    theta: float = 10_000.0,
) -> Decoder:
    """Rotary positions, gated feed-forward, RMS norms, no biases; kv_heads as in LLaMA 2 (arXiv:2307.09288)."""
    norm = RMSNorm(eps=1e-6)
    attention = Attention(heads, kv_heads, position=Rotary(theta), projection=Dense(bias=False))
    block = Block((attention, GLU(hidden)), PreNorm(norm))
    return Decoder("llama", vocab, dim, stack(block, times=depth), norm=norm, head=Untied())
