"""Relatives of the sparse feed-forward in which whole experts are chosen, each a share of the hidden units."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Layer
from formers.products import Matrix, linear
from formers.sparse.choosing import Coin, best, chance_of, sample, straight_through
from formers.sparse.layer import ChoosingLayer, choosing_problems, division_problems
from formers.spec.core import Site

HARD = 0.5  # the share of a BlockFF's training passes in which one expert works alone
ALIKE = 16  # an expert's tokens are filled up to a multiple of this: products of fewer rows are rounded in other ways


class ExpertFF(Layer):
    """hidden: units of all experts together; expert e has the rows of `up` from e * hidden / experts on.

    temperature: training draws the expert from softmax(logits / temperature); evaluation takes the largest logit.
    dropout: rate at which features of the output are dropped, the same ones for all tokens of a pass (of a chunk).
    chunk: tokens of each row worked on at a time. Choices are (B, T, 1), uint8 for up to 256 experts, or a tuple of such,
    one for each chunk; the record "units <path>" counts them.
    """

    hidden: int
    experts: int = 64
    temperature: float = 0.7
    dropout: float = 0.0
    chunk: int | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.experts < 2:
            yield f"among {self.experts} experts there is nothing to choose", "experts=8"
        else:
            yield from division_problems(self.hidden, self.experts, f"{self.experts} experts")
        yield from choosing_problems(self.temperature, self.dropout, self.chunk)


class BlockFF(ExpertFF):
    """One expert works, hidden / experts units: down(relu(up(x) * mask)), as the BlockSparseFF of trax.

    Half of the training passes have a mask of 1 at the expert that was drawn and 0 at the others, with the gradient of
    the softmax p (straight through); the other half have p, and compute all experts. Which it is, one coin says for all
    tokens of a layer (of a chunk). Evaluation, and the hard half, compute the chosen experts alone.
    """

    def build(self, site: Site) -> nn.Module:
        return BlockFFLayer(self, site)


class SwitchFF(ExpertFF):
    """One expert works, weighted by its chance p, through which the controller learns: the SwitchSparseFF of trax.

    As in the Switch Transformer (Fedus et al. 2021, arXiv:2101.03961), but without a limit of tokens for each expert
    and without a loss that balances them. Only the chosen experts are computed, always.
    """

    temperature: float = 0.1

    def build(self, site: Site) -> nn.Module:
        return SwitchFFLayer(self, site)


class ExpertFFLayer(ChoosingLayer):
    """controller (E, M), up (F, M), down (M, F)."""

    def __init__(self, spec: ExpertFF, site: Site) -> None:
        super().__init__(site, spec.hidden, spec.experts, spec.dropout, spec.chunk)
        self.spec = spec
        self.controller = Matrix(site.dim, spec.experts, bias=False)

    def outputs(self, x: Tensor, logits: Tensor, picked: Tensor, coin: Coin) -> Tensor:
        """x (B, T, M), with logits (B, T, E) of all experts, by those that are picked (B, T)."""
        raise NotImplementedError

    def choose(self, x: Tensor, coin: Coin, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        if chosen is None:
            drawn = sample(logits, self.spec.temperature, coin.on(x.device)) if self.training else best(logits)
            chosen = drawn[..., None]
        return self.outputs(x, logits, chosen.squeeze(-1), coin), chosen

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, E), in fp32 or better, since all depends on the largest."""
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(exact), self.controller.weight.to(exact))

    def alone(self, x: Tensor, picked: Tensor, gate: Tensor | None) -> Tensor:
        """Each token by its expert (B, T) alone, whose units are multiplied by its gate (B, T); expert by expert."""
        rows, order = x.flatten(0, 1), picked.flatten().long().argsort(stable=True)
        counts = torch.bincount(picked.flatten(), minlength=self.among).tolist()
        gates = [None] * self.among if gate is None else gate.flatten()[order].split(counts)
        ups, downs = self.up.weight.chunk(self.among), self.down.weight.chunk(self.among, 1)
        done = [
            self._expert(mine, up, down, weight)
            for mine, up, down, weight in zip(rows[order].split(counts), ups, downs, gates, strict=True)
            if len(mine)
        ]
        together = torch.cat(done)
        return torch.empty_like(together).index_copy(0, order, together).view_as(x) + self.down.bias

    def _expert(self, x: Tensor, up: Tensor, down: Tensor, gate: Tensor | None) -> Tensor:
        """x (n, M) by one expert. How many tokens share it must not show in any of them, not even by rounding."""
        missing = -len(x) % ALIKE
        units = linear(F.pad(x, (0, 0, 0, missing)), up)
        if gate is not None:
            units = units * F.pad(gate, (0, missing))[:, None].to(units.dtype)
        return linear(F.relu(units), down)[: len(x)]


class BlockFFLayer(ExpertFFLayer):
    def outputs(self, x: Tensor, logits: Tensor, picked: Tensor, coin: Coin) -> Tensor:
        if not self.training:
            return self.alone(x, picked, None)
        if coin.falls(HARD):  # the others stand at 0 before the ReLU, so the controller hears from the chosen alone
            return self.alone(x, picked, straight_through(1.0, chance_of(logits, picked)))
        units = self.up(x).unflatten(-1, (self.among, -1))
        active = F.relu(units * logits.softmax(-1)[..., None].to(units.dtype))
        y: Tensor = self.down(active.flatten(-2))
        return y


class SwitchFFLayer(ExpertFFLayer):
    def outputs(self, x: Tensor, logits: Tensor, picked: Tensor, coin: Coin) -> Tensor:
        return self.alone(x, picked, chance_of(logits, picked))
