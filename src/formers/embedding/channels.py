"""Embedding of images channel by channel: what a number means depends on the channel that it is of."""

from collections.abc import Iterator

from torch import Tensor, nn

from formers.call import Call
from formers.embedding.table import Embedding, EmbeddingLayer
from formers.spec.core import Site


class ChannelEmbedding(Embedding):
    """A table of token vectors for each of `channels` kinds of token, which take turns along the sequence.

    Image Transformer, Parmar et al. 2018, arXiv:1802.05751, section 3.1: red, green and blue have a table each, of as many
    intensities as the head predicts. A place always has the same table; since a decoder reads at each place the token
    before it, its first table is that of the last channel, and nothing depends on which is which.
    """

    channels: int = 3

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.channels < 1:
            yield f"there cannot be {self.channels} channels", "channels=3"

    @property
    def tables(self) -> int:
        return self.channels

    def build(self, site: Site) -> "ChannelEmbeddingLayer":
        return ChannelEmbeddingLayer(self, site)


class ChannelEmbeddingLayer(EmbeddingLayer):
    def __init__(self, spec: ChannelEmbedding, site: Site) -> None:
        super().__init__(spec, site)
        self.vocab, self.channels = site.vocab, spec.channels
        self.tokens = nn.Embedding(site.vocab * spec.channels, site.dim)

    def forward(self, tokens: Tensor, call: Call) -> Tensor:
        return super().forward(tokens + call.at.pos % self.channels * self.vocab, call)
