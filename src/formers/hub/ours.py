"""What the parameters of a block of attention and feed-forward are called here; {n} is the number of the block."""

BLOCK = "stack.blocks.{n}"
ATTENTION, FEED_FORWARD, NORMS = f"{BLOCK}.sublayers.0.projection", f"{BLOCK}.sublayers.1", f"{BLOCK}.residual.norms"


def q_k_v(leaf: str) -> tuple[str, ...]:
    """The weights or the biases of the three projections that checkpoints fuse into one."""
    return tuple(f"{ATTENTION}.{name}_proj.{leaf}" for name in "qkv")
