"""Image Transformer: images written pixel by pixel, by themselves, from a smaller picture, or below a given upper part."""

from formers.attention import Attention, Causal, CrossAttention, Local1D, Local2D, Pattern
from formers.block import Block, stack
from formers.canvas import Canvas
from formers.embedding import Embedding
from formers.embedding.channels import ChannelEmbedding
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.family.registry import member
from formers.feedforward import MLP
from formers.head import Untied
from formers.init import Xavier
from formers.model import Decoder, Encoder
from formers.position import Coordinates
from formers.residual import PostNorm

Sizes = int | tuple[int, int]

SMALL_IMAGE = {"height": 9, "width": 8, "channels": 1, "levels": 40, "dim": 32, "heads": 4, "hidden": 48}


@member(
    "Image Transformer",
    paper="arXiv:1802.05751",
    year=2018,
    cost="n·w",
    small=SMALL_IMAGE | {"depth": 2, "block": (4, 3), "memory": (2, 2)},
)
def image_transformer(
    height: int = 32,
    width: int = 32,
    channels: int = 3,
    levels: int = 256,
    dim: int = 512,
    depth: int = 12,
    heads: int = 4,
    hidden: int = 2048,
    block: Sizes = 256,
    memory: Sizes = 256,
    dropout: float = 0.3,
) -> Decoder:
    """A decoder of images whose layers see a block of the image and what is near it, in post-norm. Defaults: CIFAR-10's.

    levels: intensities of a channel. block: so many tokens in raster order (1D), or the rows and columns of a block of
    pixels (2D), which then is the order of generation too. memory: tokens before the block, or rows above it and columns
    on either side of it.
    """
    canvas = Canvas(height, width, channels, block if isinstance(block, tuple) else None)
    attention = Attention(heads, pattern=Causal() & local(canvas, block, memory))
    blocks = stack(Block((attention, MLP(hidden, "relu")), PostNorm(dropout=dropout)), times=depth)
    embedding = pixels(canvas, dropout)
    return Decoder("image_transformer", levels, dim, blocks, embedding, norm=None, head=Untied(), init=Xavier())


@member(
    "Image Transformer, from a picture",
    paper="arXiv:1802.05751",
    year=2018,
    cost="n·w",
    small=SMALL_IMAGE | {"given": (8, 4), "depth": 2, "source_depth": 1, "block": 12, "memory": 24},
)
def image_completion(
    height: int = 32,
    width: int = 32,
    channels: int = 3,
    levels: int = 256,
    given: tuple[int, int] | None = None,
    dim: int = 512,
    depth: int = 12,
    source_depth: int = 4,
    heads: int = 4,
    hidden: int = 2048,
    block: Sizes = 256,
    memory: Sizes = 256,
    dropout: float = 0.1,
) -> EncoderDecoder:
    """An image written by the same decoder, beside an encoder that has seen something of it and sees all of that at once.

    given: rows and columns of what the encoder sees. As wide as the image, that is its upper part, and what is below is
    written (completion); narrower, it is the whole image made smaller, and the image is written in full (super-resolution).
    None: the upper half. The rest as for `image_transformer`.
    """
    seen = Canvas(*(given or (height // 2, width)), channels)
    below = height - seen.height if seen.width == width else height
    canvas = Canvas(below, width, channels, block if isinstance(block, tuple) else None)
    residual, feed_forward, init = PostNorm(dropout=dropout), MLP(hidden, "relu"), Xavier()
    reads = Block((Attention(heads), feed_forward), residual)
    near = Attention(heads, pattern=Causal() & local(canvas, block, memory))
    writes = Block((near, CrossAttention(heads), feed_forward), residual)
    source, target = stack(reads, times=source_depth), stack(writes, times=depth)
    name, head = "image_completion", Untied()
    return EncoderDecoder(
        name,
        Encoder(f"{name}.source", levels, dim, source, pixels(seen, dropout), norm=None, init=init),
        Decoder(f"{name}.target", levels, dim, target, pixels(canvas, dropout), norm=None, head=head, init=init),
        shared=False,
    )


def local(canvas: Canvas, block: Sizes, memory: Sizes) -> Pattern:
    """Local attention in one dimension or in two."""
    if isinstance(block, int) and isinstance(memory, int):
        return Local1D(block, memory)
    if isinstance(block, tuple) and isinstance(memory, tuple):
        return Local2D(canvas, *memory)
    what = f"block={block} and memory={memory} are not of one kind"
    raise ConfigError(
        f"{what}: give two numbers of tokens, or two pairs of rows and columns: block=(8, 8) memory=(8, 4)"
    )


def pixels(canvas: Canvas, dropout: float) -> Embedding:
    """Tokens of a canvas at their coordinates, with a table for each channel."""
    where = Coordinates(canvas)
    if canvas.channels == 1:
        return Embedding(where, scaled=True, dropout=dropout)
    return ChannelEmbedding(where, scaled=True, dropout=dropout, channels=canvas.channels)
