"""Random directions that features project on: drawn orthogonal, and drawn again by a schedule or taken from a pool."""

from typing import Literal

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.data.chance import generator
from formers.spec.core import Site

Lengths = Literal["chi", "sqrt"]
Shape = tuple[int, ...]


def gaussian(shape: Shape, chance: torch.Generator | None = None) -> Tensor:
    """(..., R, D): independent rows of N(0, 1), in fp32 whatever the default is: a draw depends on `chance` alone."""
    return torch.randn(shape, generator=chance, dtype=torch.float32)


def orthogonal(shape: Shape, lengths: Lengths = "chi", chance: torch.Generator | None = None) -> Tensor:
    """(..., R, D): rows at right angles to each other within every D of them, each in a uniform direction.

    lengths: "chi", as long as rows of N(0, 1) are, so that each row by itself is one; "sqrt", all sqrt(D).
    """
    *heads, count, width = shape
    q, r = torch.linalg.qr(gaussian((*heads, -(-count // width), width, width), chance))
    # The signs of Q are the library's choice; together with those of R it is uniform.
    rows = (q * r.diagonal(0, -2, -1).sign()[..., None, :]).mT.flatten(-3, -2)[..., :count, :]
    if lengths == "sqrt":
        return rows * width**0.5
    return rows * gaussian(shape, chance).norm(dim=-1, keepdim=True)


class Redrawn(nn.Module):
    """Directions (H, R, D) that are drawn anew after every `period` updates; None: never.

    A Learner: what it learns from an update is that there was one. All that decides is in buffers, so that a checkpoint
    goes on as the run would have, and processes that begin alike stay alike: the `directions`, the number of `updates`
    so far, and the `seed` of the draws to come. Every call, in training or not, meets the directions that stand there.
    """

    directions: Tensor
    updates: Tensor
    seed: Tensor

    def __init__(self, count: int, lengths: Lengths | None, period: int | None, site: Site) -> None:
        super().__init__()
        self.count, self.period = count, period
        self._shape, self._lengths = (site.heads, count, site.head_dim), lengths
        self.lesson = "directions " + ".".join(map(str, site.path))
        self.register_buffer("directions", self._draw(None))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.randint(1 << 62, ()))

    def forward(self, call: Call) -> Tensor:
        return self.directions

    def noted(self) -> dict[str, tuple[Tensor, ...]]:
        """The record by which an update makes itself known."""
        if self.period is None or not self.training:
            return {}
        return {self.lesson: (torch.ones((), device=self.directions.device),)}

    @torch.no_grad()
    def learn(self, seen: Tensor) -> None:
        """Count an update, and draw if it is time; what it saw does not matter."""
        self.updates += 1
        drawn, rest = divmod(int(self.updates), self.period or 1)
        if self.period is not None and not rest:
            self.directions.copy_(self._draw(generator(int(self.seed), drawn)))

    def _draw(self, chance: torch.Generator | None) -> Tensor:
        """lengths None: rows that are not orthogonal."""
        return (
            gaussian(self._shape, chance) if self._lengths is None else orthogonal(self._shape, self._lengths, chance)
        )


class Pooled(nn.Module):
    """Directions (H, R, D) of a pool of `size` draws: the first in evaluation, any of them in training, by the call's seed."""

    pool: Tensor

    def __init__(self, count: int, size: int, site: Site) -> None:
        super().__init__()
        self.count, self._path = count, site.path
        self.register_buffer("pool", gaussian((size, site.heads, count, site.head_dim)))

    def forward(self, call: Call) -> Tensor:
        if not self.training:
            return self.pool[0]
        return self.pool[int(torch.randint(len(self.pool), (), generator=call.chance(self._path)))]

    def noted(self) -> dict[str, tuple[Tensor, ...]]:
        return {}
