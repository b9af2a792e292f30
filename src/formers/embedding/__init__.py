"""Embeddings: what becomes a vector, and by which table: of tokens, of channels, or with a product behind it."""

from formers.embedding.table import Embedding, EmbeddingLayer

__all__ = ["Embedding", "EmbeddingLayer"]
