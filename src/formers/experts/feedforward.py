"""The feed-forwards of all experts, run side by side."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from formers.experts.stacked import StackedLinear
from formers.feedforward import ACTIVATIONS, GLU, FeedForward
from formers.linear import Linear


def experts_of(expert: FeedForward | Linear, count: int, dim: int, scale: float) -> nn.Module:
    """So many of them: a module with the ways that `Experts` has."""
    return (
        Experts(expert, count, dim, scale) if isinstance(expert, FeedForward) else Matrices(expert, count, dim, scale)
    )


Product = Callable[[StackedLinear, Tensor], Tensor]


class Experts(nn.Module):
    """up (N, F, M) and down (N, M, F), and gate (N, F, M) where the expert is a GLU, each with a bias or without.

    This is what a layer of experts keeps under `experts`, and what is replaced where they live on several machines. What
    stands there must map seats, as `forward` does; `grouped` and `alone` are shorter ways that are used where they exist.
    """

    def __init__(self, expert: FeedForward, count: int, dim: int, scale: float) -> None:
        super().__init__()
        self.count, self.rate = count, expert.dropout
        self.activation = ACTIVATIONS[expert.activation]
        hidden, bias = expert.hidden, expert.bias
        self.gate = StackedLinear(count, dim, hidden, bias=bias, scale=scale) if isinstance(expert, GLU) else None
        self.up = StackedLinear(count, dim, hidden, bias=bias, scale=scale)
        self.down = StackedLinear(count, hidden, dim, bias=bias, scale=scale)

    def forward(self, seats: Tensor) -> Tensor:
        """seats (N, S, M): the tokens of each expert -> what it makes of them (N, S, M)."""
        return self._made(seats, StackedLinear.forward)

    def grouped(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """rows (n, M), the first sizes[0] of them of expert 0, and so on -> (n, M). No seat is empty."""
        return self._made(rows, lambda linear, x: linear.grouped(x, sizes))

    def alone(self, x: Tensor, expert: int) -> Tensor:
        """x (n, M) by one expert -> (n, M): only its weights are read. Without gradients."""
        return self._made(x, lambda linear, y: linear.alone(y, expert))

    def _made(self, x: Tensor, product: Product) -> Tensor:
        if self.gate is None:
            units = self.activation(product(self.up, x))
        else:
            units = self.activation(product(self.gate, x)) * product(self.up, x)
        return product(self.down, F.dropout(units, self.rate, self.training) if self.rate else units)


class Matrices(nn.Module):
    """The same ways of experts that are a matrix each: linear (N, M, M), with a bias or without."""

    def __init__(self, expert: Linear, count: int, dim: int, scale: float) -> None:
        super().__init__()
        self.count = count
        self.linear = StackedLinear(count, dim, dim, bias=expert.bias, scale=scale)

    def forward(self, seats: Tensor) -> Tensor:
        """seats (N, S, M) -> (N, S, M)."""
        made: Tensor = self.linear(seats)
        return made

    def grouped(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """rows (n, M), the first sizes[0] of them of expert 0, and so on -> (n, M)."""
        return self.linear.grouped(rows, sizes)

    def alone(self, x: Tensor, expert: int) -> Tensor:
        """x (n, M) by one expert -> (n, M). Without gradients."""
        return self.linear.alone(x, expert)
