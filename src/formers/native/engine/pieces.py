"""How much work an operation is cut into, so that threads can share it. It does not depend on their number: nor do sums."""

from formers.native.engine.weights import BITS

SHARE = 64 << 10  # bytes that a piece reads, about
MOST = 8


def pieces_of(dtype: str, numbers: int) -> int:
    """The pieces of an operation that reads so many weights of a type."""
    return min(MOST, max(1, numbers * BITS[dtype] // 8 // SHARE))
