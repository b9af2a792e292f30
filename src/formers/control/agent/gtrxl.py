"""GTrXL as the memory of an agent."""

from formers.attention import Causal, Segments
from formers.block import stack
from formers.control.agent.model import THIS_EPISODE, Agent
from formers.control.spaces import Space
from formers.family.control import gtrxl_block
from formers.residual.gated import GRUGate


def gtrxl_agent(
    observation: Space,
    action: Space,
    dim: int = 64,
    depth: int = 2,
    heads: int = 4,
    hidden: int = 128,
    segment: int = 16,
    memory: int = 16,
    bias: float = 2.0,
) -> Agent:
    """A GTrXL that sees its own segment of the episode and the `memory` steps before it. arXiv:1910.06764.

    Defaults: small, for one core; the paper's agents have 12 layers of width 256 and a memory of 512 steps.
    segment=1, memory=0 remembers nothing: the same network, which acts by what it sees now.
    """
    pattern = Causal() & Segments(segment, memory) & THIS_EPISODE
    block = gtrxl_block(heads, hidden, pattern, gate=GRUGate(bias))
    return Agent("gtrxl", observation, action, dim, stack(block, times=depth))
