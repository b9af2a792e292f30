"""Decision Transformer: acting as the next token of a sequence. Chen et al. 2021, arXiv:2106.01345."""

from formers.control.decision.embedding import ActionHead, StepEmbedding
from formers.control.decision.model import Decided, DecisionLayer, DecisionState, DecisionTransformer

__all__ = ["ActionHead", "Decided", "DecisionLayer", "DecisionState", "DecisionTransformer", "StepEmbedding"]
