"""One expert for each token. Switch Transformer, Fedus et al. 2021, arXiv:2101.03961. Experts may live on other machines."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from formers.call import Call, Layer, Out
from formers.spec import Site


class SketchSwitch(Layer):
    """p_i E_i(x) for the likeliest expert i; each takes capacity * T / experts tokens of a row, the rest pass by.

    balance: weight of the loss "load_balance", experts * sum(share of tokens * mean probability), 1 at its least.
    """

    expert: Layer
    experts: int
    capacity: float = 1.25
    balance: float = 0.01

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.streaming and self.capacity < self.experts:
            what = "whether an expert is full depends on how many tokens a call brings"
            yield what, f"capacity={float(self.experts)}"

    def build(self, site: Site) -> nn.Module:
        return SketchSwitchLayer(self, site)


class SketchSwitchLayer(nn.Module):
    def __init__(self, spec: SketchSwitch, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.router = nn.Linear(site.dim, spec.experts, bias=False)
        self.experts: nn.Module = SketchExperts(spec.expert.build(site.part(i)) for i in range(spec.experts))

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        count, (batch, length, dim) = self.spec.experts, x.shape
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if call.at.real is None else call.at.real
        p = self.router(x).softmax(-1)
        chosen = p.argmax(-1) if choices is None else choices
        sent = F.one_hot(chosen, count) * real[..., None]
        tokens = real.sum(1, keepdim=True)
        room = math.ceil(self.spec.capacity * length / count)
        slot = (sent.cumsum(1) - 1).gather(-1, chosen[..., None]).squeeze(-1)
        taken = real & (slot < (self.spec.capacity * tokens / count).ceil())
        seat = torch.where(taken, chosen * room + slot, count * room)  # the last seat is nobody's
        seat = seat[..., None].expand(-1, -1, dim)
        seats = x.new_zeros(batch, count * room + 1, dim).scatter(1, seat, x)[:, :-1]
        seats = seats.unflatten(1, (count, room)).transpose(0, 1).flatten(1, 2)
        seats = self.experts(seats, call).unflatten(1, (batch, room)).transpose(0, 1).flatten(1, 2)
        y = F.pad(seats, (0, 0, 0, 1)).gather(1, seat) * p.gather(-1, chosen[..., None])
        share, mean = sent.sum(1) / tokens, (p * real[..., None]).sum(1) / tokens
        losses = {"load_balance": self.spec.balance * count * (share * mean).sum(-1).mean()}
        return Out(y, None, losses, chosen, {"load": (sent.sum((0, 1)),), "dropped": ((real & ~taken).sum(),)})


class SketchExperts(nn.ModuleList):
    def forward(self, seats: Tensor, call: Call) -> Tensor:
        """seats (N, S, M): each expert's tokens -> what it makes of them."""
        outs = [expert(own[None], call).y[0] for expert, own in zip(self, seats, strict=True)]
        return torch.stack(outs)


class SketchShardedExperts(nn.Module):
    """The experts of one rank: tokens travel to the rank that owns their expert, and back."""

    def __init__(self, experts: SketchExperts) -> None:
        super().__init__()
        own = len(experts) // distributed.get_world_size()
        self.own = SketchExperts(list(experts)[own * distributed.get_rank() :][:own])

    def forward(self, seats: Tensor, call: Call) -> Tensor:
        world, own = distributed.get_world_size(), len(self.own)
        arrived = AllToAll.apply(seats).unflatten(0, (world, own)).transpose(0, 1)
        made = self.own(arrived.flatten(1, 2), call).unflatten(1, (world, -1))
        return AllToAll.apply(made.transpose(0, 1).flatten(0, 1))


class AllToAll(torch.autograd.Function):
    """Part r of this rank goes to rank r, whose parts come here. The gradient goes back by the same road."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        arrived = torch.empty_like(x)
        distributed.all_to_all_single(arrived, x.contiguous())
        return arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return AllToAll.apply(grad)


def shard(model: nn.Module) -> nn.Module:
    """The same model, with only this rank's experts: a change to the built model, not to its spec."""
    for module in model.modules():
        if isinstance(module, SketchSwitchLayer):
            module.experts = SketchShardedExperts(module.experts)
    return model
