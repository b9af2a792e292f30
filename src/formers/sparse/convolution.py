"""Convolutions over time and neighbouring modules: one small set of weights for all modules of a vector."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.errors import ConfigError
from formers.places import Places
from formers.sparse.multiplicative import Begin, begin_bias, module_width


class ModuleConv(nn.Module):
    """Each vector is a row of S modules; causal in time, zero-padded over modules. Jaszczur et al. 2021, arXiv:2111.12763.

    y[t, s, o] = sum_{j, n, c} x[t - (length - 1) + j, s + n - width // 2, c] weight[o, c, j, n] + bias[o], with c of
    inputs / S numbers and o of outputs / S. weight (outputs / S, inputs / S, length, width), bias (outputs / S).
    No `Init` sets it: it begins by itself, see `Begin`.

    Differs from the paper's code: there the area of the kernel is left out of the fan, so that what comes out begins
    length * width times as strong in its square; init="published" has it so.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modules: int,
        length: int = 3,
        width: int = 3,
        bias: bool = True,
        init: Begin = "fan",
    ) -> None:
        """Raises ConfigError unless inputs and outputs split into that many modules, and the kernel has a middle."""
        super().__init__()
        if length < 1 or width < 1 or width % 2 == 0:
            raise ConfigError(
                f"a kernel of {length} tokens and {width} modules has no middle module: width=3, length=3"
            )
        self.modules_in_row, self.length, self.width = modules, length, width
        shape = module_width(outputs, modules), module_width(inputs, modules), length, width
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0])) if bias else None
        area = length * width if init == "fan" else 1
        nn.init.normal_(self.weight, std=(2 / (area * (shape[0] + shape[1]))) ** 0.5)
        begin_bias(self.bias, init)

    @property
    def back(self) -> int:
        """How many tokens before its own an output depends on."""
        return self.length - 1

    def forward(self, rows: Tensor) -> Tensor:
        """rows (B, back + T, inputs) -> (B, T, outputs): the first `back` of them are seen and not written.

        Fewer modules than all, side by side, are taken as a row of their own.
        """
        image = rows.unflatten(-1, (-1, self.weight.shape[1])).permute(0, 3, 1, 2)  # (B, M, back + T, S), M innermost
        y = F.conv2d(image, self.weight, self.bias, padding=(0, self.width // 2))
        return y.permute(0, 2, 3, 1).flatten(2)

    @property
    def products(self) -> int:
        """Multiplications for one token."""
        return self.modules_in_row * self.weight.numel()


class Unbroken(NamedTuple):
    """The tokens of a call without the padding among them, behind those that came before.

    rows: (B, back + T, W): what came before, the real tokens of each row in order, then what is left. tail: (B, back, W),
    the last real ones, for the next call. slot: (B, T), where the real tokens went; None: there they stand.
    """

    rows: Tensor
    tail: Tensor
    slot: Tensor | None

    def put_back(self, made: Tensor) -> Tensor:
        """What was made of each of the tokens (B, T, any width), to where they stand; padding gets anything finite."""
        return made if self.slot is None else _rows(made, self.slot)


def unbroken(x: Tensor, at: Places, past: Tensor | None, back: int) -> Unbroken:
    """x (B, T, W) behind the `back` tokens of `past`, which are 0 where nothing came before."""
    if back == 0:
        return Unbroken(x, x[:, :0], None)
    before = x.new_zeros(x.shape[0], back, x.shape[2]) if past is None else past
    if at.real is None:
        rows = torch.cat([before, x], 1)
        return Unbroken(rows, rows[:, x.shape[1] :].clone(), None)
    order = at.real.long().argsort(dim=1, descending=True, stable=True)
    rows = torch.cat([before, _rows(x, order)], 1)
    last = at.real.sum(1, keepdim=True) + torch.arange(back, device=x.device)
    return Unbroken(rows, _rows(rows, last), (at.real.cumsum(1) - 1).clamp(min=0))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x (B, T, W) at (B, N) -> (B, N, W)."""
    return torch.take_along_dim(x, index[..., None], 1)
