"""Where the time of decoding goes, operation by operation, and what each must read at least."""

from collections.abc import Sequence
from typing import NamedTuple

from formers.native.engine.program import Op, Program


class Spent(NamedTuple):
    """label: the parts that an operation was lowered from. seconds: of all calls. bytes: of the weights that it reads for
    one token."""

    label: str
    operation: str
    seconds: float
    bytes: int


def spent_by(program: Program, seconds: Sequence[float]) -> list[Spent]:
    """One for each operation, in their order."""
    pairs = zip(program.ops, seconds, strict=True)
    return [Spent(op.label, op.name, taken, touched(program, op)) for op, taken in pairs]


def touched(program: Program, op: Op) -> int:
    """Bytes of weights that the operation reads for one token."""
    matrices = [program.matrices[number] for number in op.matrices]
    if op.name in ("embed", "place"):
        return sum(matrix.stride for matrix in matrices)
    whole = [matrix.rows * matrix.stride for matrix in matrices]
    if op.name == "sparse_feedforward":  # of each block of units one
        return whole[0] + whole[1] + whole[2] // op.ints[0]
    if op.name == "experts":
        return whole[0] + 2 * op.ints[0] * matrices[1].stride
    if op.name == "switch_experts":  # of all experts those that a token meets
        return whole[0] + (whole[1] + whole[2]) * op.ints[1] // matrices[0].rows
    return sum(whole)
