"""Products through a narrow middle."""

import torch
from torch import Tensor, nn

from formers.errors import ConfigError
from formers.products import linear
from formers.sparse.multiplicative import Begin, begin_bias


class LowRankLinear(nn.Module):
    """y = up(down(x)): down (rank, inputs) and up (outputs, rank), each with its bias.

    No `Init` sets it: it begins by itself, see `Begin`.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool = True, init: Begin = "fan") -> None:
        """Raises ConfigError without a rank."""
        super().__init__()
        if rank < 1:
            raise ConfigError(f"nothing passes a middle of {rank} numbers: rank=64")
        self.down, self.up = (nn.Parameter(torch.empty(shape)) for shape in ((rank, inputs), (outputs, rank)))
        self.down_bias = nn.Parameter(torch.empty(rank)) if bias else None
        self.up_bias = nn.Parameter(torch.empty(outputs)) if bias else None
        if init == "published":
            nn.init.xavier_uniform_(self.down)
            nn.init.xavier_uniform_(self.up)
        else:  # the middle as strong as what comes in, and the whole as strong as Glorot's product
            nn.init.normal_(self.down, std=inputs**-0.5)
            nn.init.normal_(self.up, std=(2 * inputs / (rank * (inputs + outputs))) ** 0.5)
        for part in (self.down_bias, self.up_bias):
            begin_bias(part, init)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        return linear(linear(x, self.down, self.down_bias), self.up, self.up_bias)

    def rows(self, x: Tensor, outputs: slice) -> Tensor:
        """x (..., inputs) -> some of the outputs alone."""
        bias = None if self.up_bias is None else self.up_bias[outputs]
        return linear(linear(x, self.down, self.down_bias), self.up[outputs], bias)

    def columns(self, x: Tensor, inputs: slice) -> Tensor:
        """Some of the inputs (..., I) -> what they add to the outputs (..., outputs); the first bring the biases."""
        down_bias, up_bias = (self.down_bias, self.up_bias) if inputs.start == 0 else (None, None)
        return linear(linear(x, self.down[:, inputs], down_bias), self.up, up_bias)

    @property
    def products(self) -> int:
        """Multiplications for one token."""
        return self.down.numel() + self.up.numel()
