"""Decision Transformer: a GPT-2 over returns, observations and actions."""

from formers.attention import Attention
from formers.block import Block, stack
from formers.control.decision.embedding import StepEmbedding
from formers.control.decision.model import DecisionTransformer
from formers.control.spaces import Choices, Numbers, Space
from formers.family.registry import ACTORS, member
from formers.feedforward import MLP, Activation
from formers.init import Normal
from formers.residual import PreNorm


@member(
    "Decision Transformer",
    paper="arXiv:2106.01345",
    year=2021,
    cost="n²",
    small={
        "observation": Numbers(3),
        "action": Choices(4),
        "dim": 24,
        "depth": 2,
        "heads": 2,
        "horizon": 16,
        "context": 5,
    },
    register=ACTORS,
)
def decision_transformer(
    observation: Space = Numbers(11),
    action: Space = Numbers(3, (-1.0,) * 3, (1.0,) * 3),
    dim: int = 128,
    depth: int = 3,
    heads: int = 1,
    context: int = 20,
    horizon: int = 1000,
    return_scale: float = 1000.0,
    activation: Activation = "relu",
    dropout: float = 0.1,
) -> DecisionTransformer:
    """Acts so that the return that it is asked for comes true. Defaults: the paper's runs on Gym, here on Hopper."""
    block = Block((Attention(heads, dropout=dropout), MLP(4 * dim, activation)), PreNorm(dropout=dropout))
    embedding = StepEmbedding(observation, action, horizon, return_scale, dropout=dropout)
    init = Normal(depth_scaled=True)
    return DecisionTransformer("decision_transformer", dim, stack(block, times=depth), embedding, context, init=init)
