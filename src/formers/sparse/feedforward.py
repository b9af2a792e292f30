"""The sparse feed-forward of Scaling Transformers: a controller picks one unit of each block."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Layer
from formers.products import Matrix
from formers.sparse.active import Weights, active_alone, pays, refuses
from formers.sparse.choosing import Coin, best, chance_of, one_hot, sample, straight_through
from formers.sparse.controller import Matrices, decided, refuses_control
from formers.sparse.layer import ChoosingLayer, choosing_problems, division_problems
from formers.spec.core import Site


class SparseFF(Layer):
    """down(relu(up(x) * mask)), the mask leaving one unit of each block: Jaszczur et al. 2021, arXiv:2111.12763.

    hidden: units, in blocks of `block`; unit u is number u % block of block u // block. rank: width of the controller
    between its two products; softmax(controller_out(controller_in(x))) in each block chooses. It has no default: the
    paper's rule is dim / block, with which choosing costs as much as the chosen units; trax takes hidden / block, which
    in wide models costs several times as much as all the rest.

    Training draws the units from softmax(logits / temperature) (trax: argmax(log p + temperature * Gumbel noise), which
    is the same), and multiplies by 1 at each and 0 elsewhere in a share `hard` of its passes, by the softmax p itself in
    the others. What the mask is multiplied by reaches the controller as if the mask were p (straight through). One coin
    is thrown for all tokens, in each layer, and each chunk of it, by itself; it and the draws follow from the seed of the
    call. Evaluation takes the largest logits, and a mask of 0 and 1.

    mask: "before" the ReLU, as in trax: units that are not chosen stand at 0 there, and in hard passes tell the
    controller nothing; "after": they tell it what they would have been worth. weighted: chosen units are multiplied by
    their p behind the ReLU, too; in hard passes p gets no gradient from that, in evaluation it does.
    dropout: rate at which features of the output are dropped, the same ones for all tokens of a pass (of a chunk).
    chunk: tokens of each row worked on at a time; the last chunk may be shorter. Choices are kept, not made again.

    Choices are (B, T, hidden / block), uint8 where a block has up to 256 units, or a tuple of such, one for each chunk.
    The record "units <path>" counts them; see `formers.sparse.usage`.

    Only the chosen units are computed, in evaluation and in hard passes with the mask before, where that is faster: for
    few tokens, and on CPUs with the native kernels for any number.
    """

    hidden: int
    block: int
    rank: int
    temperature: float = 0.1
    hard: float = 0.3
    mask: Literal["before", "after"] = "before"
    weighted: bool = False
    dropout: float = 0.0
    chunk: int | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.block < 2:
            yield f"in a block of {self.block} there is nothing to choose", "block=16"
        else:
            yield from division_problems(self.hidden, self.block, f"blocks of {self.block}")
        if self.rank < 1:
            rank = max(1, site.dim // max(1, self.block))
            yield f"a controller of rank {self.rank} sees nothing of its input", f"rank={rank}"
        if not 0 <= self.hard <= 1:
            yield f"the share of passes with a hard mask lies from 0 to 1, got {self.hard}", "hard=0.3"
        yield from choosing_problems(self.temperature, self.dropout, self.chunk)

    def build(self, site: Site) -> nn.Module:
        return SparseFFLayer(self, site)


class SparseFFLayer(ChoosingLayer):
    """controller_in (rank, M), controller_out (F, rank), up (F, M), down (M, F): a unit is a row of up, a column of down."""

    def __init__(self, spec: SparseFF, site: Site) -> None:
        super().__init__(site, spec.hidden, spec.block, spec.dropout, spec.chunk)
        self.spec = spec
        self.controller_in = Matrix(site.dim, spec.rank, bias=False)
        self.controller_out = Matrix(spec.rank, spec.hidden)

    def choose(self, x: Tensor, coin: Coin, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        spec, inner = self.spec, self._inner(x)
        hard = self.training and coin.falls(spec.hard)
        few = (hard and spec.mask == "before") or not self.training
        if few and refuses(x, self._weights) is None and refuses_control(inner, self._controller) is None:
            return self._alone(x, inner, coin, chosen)
        logits = self._logits(inner)
        if not self.training:
            chosen = best(logits) if chosen is None else chosen
            return self._evaluated(x, logits, chosen), chosen
        if chosen is None:
            chosen = sample(logits, spec.temperature, coin.on(x.device))
        return self._hard(x, logits, chosen) if hard else self._dense(x, logits.softmax(-1)), chosen

    def logits(self, x: Tensor) -> Tensor:
        """What the controller makes of x (B, T, M): (B, T, K, N), in fp32 or better, since all depends on its largest."""
        return self._logits(self._inner(x))

    def _inner(self, x: Tensor) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(exact), self.controller_in.weight.to(exact))

    def _logits(self, inner: Tensor) -> Tensor:
        weight, bias, block = self._controller
        with torch.autocast(inner.device.type, enabled=False):
            return F.linear(inner, weight.to(inner.dtype), bias.to(inner.dtype)).unflatten(-1, (-1, block))

    def _alone(self, x: Tensor, inner: Tensor, coin: Coin, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Only the chosen units, by choices whose logits are nowhere kept."""
        drawn = coin.on(x.device) if self.training and chosen is None else None
        picked, chance = decided(inner, self._controller, chosen, self.spec.temperature, drawn)
        gate = straight_through(1.0, chance) if self.training else None
        worth = chance.detach() if self.training else chance
        return active_alone(x, picked, self._weights, gate, worth if self.spec.weighted else None), picked

    def _evaluated(self, x: Tensor, logits: Tensor, picked: Tensor) -> Tensor:
        worth = chance_of(logits, picked) if self.spec.weighted else None
        if pays(x, self._weights):
            return active_alone(x, picked, self._weights, worth=worth)
        return self._dense(x, one_hot(picked, logits), None if worth is None else worth[..., None])

    def _hard(self, x: Tensor, logits: Tensor, picked: Tensor) -> Tensor:
        """A training pass with a mask of 0 and 1.

        With the mask before the ReLU, all units but the chosen stand at 0 there, and the ReLU passes no gradient at 0:
        neither `up` nor the controller hears from them, so that they need not be computed.
        """
        if self.spec.mask == "before" and pays(x, self._weights):
            chance = chance_of(logits, picked)
            worth = chance.detach() if self.spec.weighted else None
            return active_alone(x, picked, self._weights, straight_through(1.0, chance), worth)
        chances = logits.softmax(-1)
        worth = chances.detach() if self.spec.weighted else None
        return self._dense(x, straight_through(one_hot(picked, chances), chances), worth)

    def _dense(self, x: Tensor, mask: Tensor, worth: Tensor | None = None) -> Tensor:
        """All units, masked by (B, T, K, N); worth: what multiplies them behind the ReLU."""
        units = self.up(x).unflatten(-1, (-1, self.spec.block))
        mask = mask.to(units.dtype)
        active = F.relu(units * mask) if self.spec.mask == "before" else F.relu(units) * mask
        if worth is not None:
            active = active * worth.to(units.dtype)
        y: Tensor = self.down(active.flatten(-2))
        return y

    @property
    def _controller(self) -> Matrices:
        return Matrices(self.controller_out.weight, self.controller_out.bias, self.spec.block)

    @property
    def _weights(self) -> Weights:
        return Weights(self.up.weight, self.down.weight, self.down.bias, self.spec.block)
