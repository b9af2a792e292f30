"""Switch: a feed-forward of many experts, of which each token meets one."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.call import Call, Layer, Out
from formers.experts.feedforward import experts_of
from formers.experts.router import Routed, Router, balance_loss
from formers.experts.seats import Seating, from_seats, seat_alike, seat_closely, to_seats
from formers.feedforward import FeedForward
from formers.linear import Linear
from formers.sparse.usage import is_counted
from formers.spec.core import Site


class Switch(Layer):
    """p_i(x) E_i(x) for the likeliest of N experts: Fedus et al. 2021, arXiv:2101.03961.

    expert: what one of them is, an MLP or a GLU, whose dropout is the paper's expert dropout, or one matrix. top_k: how
    many experts a token meets; 1 is Switch, more are weighted by their chances over the sum of these (Shazeer et al.
    2017, arXiv:1701.06538).

    capacity: in training, an expert takes up to capacity k T / N tokens of a row of T, rounded up, in their order; what
    does not fit adds nothing to the stream. eval_capacity: the same in evaluation, where the paper has 2; None: no limit,
    which alone makes decoding equal one pass. Padding takes no seat. Where k > 1 a token's choices stand one behind the
    other, so that none depends on a later token; GShard, arXiv:2006.16668, seats all first choices before any second.

    balance: weight of the loss "load_balance", N sum(f P) of each row in the mean over rows (see `balance_loss`), which
    training adds up over layers. jitter: see `Router`. scale: weights begin as `Truncated(scale)` says, whatever the model's
    `init` is.

    Choices are (B, T, k), int64. Records: "load" (N,), how many choices fell on each expert, and "dropped" (), how many
    of them found no seat; in training, and in passes that nothing continues.
    """

    expert: FeedForward | Linear
    experts: int
    top_k: int = 1
    capacity: float | None = 1.25
    eval_capacity: float | None = None
    balance: float = 0.01
    jitter: float = 0.01
    scale: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.experts < 1:
            yield f"among {self.experts} experts there is none to go to", "experts=8"
        elif not 1 <= self.top_k <= self.experts:
            yield f"a token cannot meet {self.top_k} of {self.experts} experts", "top_k=1"
        for name, mend in (("capacity", 1.25), ("eval_capacity", 2.0)):
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield f"with {name}={value:g} no expert has a seat", f"{name}={mend}"
        if site.streaming and self.eval_capacity is not None:
            what = f"with eval_capacity={self.eval_capacity:g} an expert is full after so many tokens of a call"
            yield f"{what}, so that decoding would differ from one pass", "eval_capacity=None"
        if not 0 <= self.jitter < 1:
            yield (
                f"jitter multiplies by 1 - jitter to 1 + jitter, and is from 0 to below 1, got {self.jitter}",
                "jitter=0.01",
            )
        if self.balance < 0:
            yield f"a loss of weight {self.balance} would reward crowding", "balance=0.01"
        if self.scale <= 0:
            yield f"weights are drawn with a variance of {self.scale} / inputs, which must be positive", "scale=0.1"
        if isinstance(self.expert, FeedForward) and self.expert.chunk is not None:
            yield "experts work on all of their tokens at once", "chunk=None"

    def build(self, site: Site) -> nn.Module:
        return SwitchLayer(self, site)


class SwitchLayer(nn.Module):
    """router: weight (N, M); experts: see `Experts`, the part that is replaced where they live on several machines."""

    def __init__(self, spec: Switch, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.router = Router(site.path, spec.experts, spec.top_k, site.dim, spec.jitter, spec.scale)
        self.experts: Any = experts_of(spec.expert, spec.experts, site.dim, spec.scale)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        routed: Routed = self.router(x, call, choices)
        if self._is_step(x, call):
            return Out(self._step(x, routed), choices=routed.chosen)
        seating = self._seating(routed.chosen, call.at.real)
        y = self._made(x.flatten(0, 1), routed.gates.flatten(0, 1), seating).view_as(x)
        losses = {}
        if self.training and self.spec.balance:
            losses["load_balance"] = self.spec.balance * balance_loss(routed, seating.loads, call.at.real)
        records: dict[str, tuple[Tensor, ...]] = {}
        if is_counted(self.training, call):
            load = seating.loads.sum(0)
            records = {"load": (load,), "dropped": (load.sum() - _seated(seating),)}
        return Out(y, None, losses, routed.chosen, records)

    def _is_step(self, x: Tensor, call: Call) -> bool:
        """Whether this is one token that is decoded, which needs no seat."""
        single = x.shape[:2] == (1, 1) and call.at.real is None
        return single and not self.training and not torch.is_grad_enabled() and hasattr(self.experts, "alone")

    def _step(self, x: Tensor, routed: Routed) -> Tensor:
        made = [self.experts.alone(x[0], expert) for expert in routed.chosen.flatten().tolist()]
        gates = routed.gates.to(made[0].dtype)[0, 0]
        return (made[0] * gates if len(made) == 1 else gates @ torch.cat(made))[None].view_as(x)

    def _seating(self, chosen: Tensor, real: Tensor | None) -> Seating:
        """On CPUs, and where there is no limit, experts have as many seats as tokens; elsewhere sizes are not asked for,
        since the answer would have to be waited for."""
        spec = self.spec
        capacity = spec.capacity if self.training else spec.eval_capacity
        close = hasattr(self.experts, "grouped") and (capacity is None or chosen.device.type == "cpu")
        return (seat_closely if close else seat_alike)(chosen, real, spec.experts, capacity)

    def _made(self, x: Tensor, gates: Tensor, seating: Seating) -> Tensor:
        """x (n, M), gates (n, k) -> (n, M)."""
        if not len(seating.choices):
            return torch.zeros_like(x)
        rows = to_seats(x, seating)
        if seating.sizes is not None:
            return from_seats(self.experts.grouped(rows, seating.sizes), gates, seating)
        made = self.experts(rows.unflatten(0, (self.spec.experts, -1)))
        return from_seats(made.flatten(0, 1), gates, seating)


def _seated(seating: Seating) -> Tensor:
    """How many choices have a seat."""
    if seating.taken is None:
        return torch.tensor(seating.seats.numel(), device=seating.seats.device)
    return seating.taken.sum()
