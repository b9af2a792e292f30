"""The router: which experts a token goes to, and how loudly each of them speaks."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call
from formers.experts.init import truncated_
from formers.sparse.choosing import Coin


class Routed(NamedTuple):
    """chances (B, T, N): the softmax; chosen (B, T, k) int64; gates (B, T, k): what multiplies the chosen experts."""

    chances: Tensor
    chosen: Tensor
    gates: Tensor


class Router(nn.Module):
    """softmax(W x) over N experts, in fp32 or better whatever the rest is in: weight (N, M), no bias.

    One expert is multiplied by its chance, as in Switch; several by their chances over the sum of these, as in Shazeer
    et al. 2017, arXiv:1701.06538. jitter: training multiplies what the router reads, and nothing else, by numbers from
    1 - jitter to 1 + jitter.
    """

    def __init__(self, path: tuple[int, ...], count: int, top_k: int, dim: int, jitter: float, scale: float) -> None:
        super().__init__()
        self.path, self.top_k, self.jitter = path, top_k, jitter
        self.weight = nn.Parameter(torch.empty(count, dim))
        truncated_(self.weight, scale)

    def forward(self, x: Tensor, call: Call, chosen: Tensor | None = None) -> Routed:
        """x (B, T, M); chosen: decisions of an earlier pass, to be obeyed."""
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            read = x.to(exact)
            if self.training and self.jitter:
                read = read * self._noise(read, call)
            chances = F.linear(read, self.weight.to(exact)).softmax(-1)
        if chosen is None:
            chosen = chances.detach().topk(self.top_k).indices if self.top_k > 1 else chances.argmax(-1, keepdim=True)
        gates = chances.gather(-1, chosen)
        return Routed(chances, chosen, gates / gates.sum(-1, keepdim=True) if self.top_k > 1 else gates)

    def _noise(self, read: Tensor, call: Call) -> Tensor:
        """It follows from the seed of the call, so that a pass that is run again meets the same.

        Four numbers of 65,536 levels are cut out of each that is drawn, since drawing takes the time.
        """
        chance = Coin(call, self.path).on(read.device)
        words = torch.empty(-(-read.numel() // 4), dtype=torch.int64, device=read.device)
        levels = words.random_(-(1 << 63), None, generator=chance).view(torch.int16)[: read.numel()].view_as(read)
        return levels.to(read.dtype).mul_(self.jitter / (1 << 15)).add_(1)


def balance_loss(routed: Routed, loads: Tensor, real: Tensor | None) -> Tensor:
    """N sum(f P) of each row, in the mean over the rows that hold a token; 1 where all experts are chosen alike.

    f: the share of a row's choices that fall on an expert, before any is dropped, which has no gradient; P: the mean of
    its chances. loads (B, N): choices of real tokens; real (B, T).
    """
    chances, count = routed.chances, routed.chances.shape[-1]
    if real is None:
        tokens, mean = chances.new_full((len(chances), 1), chances.shape[1]), chances.mean(1)
    else:
        tokens = real.sum(1, keepdim=True).to(chances.dtype)
        mean = (chances * real[..., None]).sum(1) / tokens.clamp(min=1)
    share = loads / (tokens * routed.chosen.shape[-1]).clamp(min=1)
    return count * (share * mean).sum() / (tokens > 0).sum().clamp(min=1)
