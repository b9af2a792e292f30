"""Embeddings with a product behind them."""

from torch import Tensor

from formers.call import Call
from formers.embedding.table import Embedding, EmbeddingLayer
from formers.products import Matrix
from formers.spec.core import Site


class ProjectedEmbedding(Embedding):
    """As `Embedding`, with a matrix and its bias between the norm and the dropout: FNet's, arXiv:2105.03824."""

    def build(self, site: Site) -> EmbeddingLayer:
        return ProjectedEmbeddingLayer(self, site)


class ProjectedEmbeddingLayer(EmbeddingLayer):
    def __init__(self, spec: ProjectedEmbedding, site: Site) -> None:
        super().__init__(spec, site)
        self.proj = Matrix(site.dim, site.dim)

    def vectors(self, tokens: Tensor, call: Call) -> Tensor:
        return self.proj(super().vectors(tokens, call))
