"""What a search gives, and what is made of it: probabilities of next tokens, mixed with a model's own."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from formers.errors import ConfigError

HALVINGS = 60  # of the interval that the best mix lies in
MOST = 0.999  # the best mix of one text must leave the model a say in another, whose tokens are not all found


class Found(NamedTuple):
    """The nearest entries of each query, nearest first.

    distances: (Q, k) float32, squared; entries: (Q, k) int64. Where there are fewer than k: infinity and -1.
    """

    distances: Tensor
    entries: Tensor

    def tokens(self, values: npt.NDArray[np.int32]) -> Tensor:
        """(Q, k) int64, the token that followed each; -1 where there is none."""
        taken = torch.from_numpy(values[self.entries.clamp(min=0).numpy()]).long()
        return taken.masked_fill(self.entries < 0, -1)


def weights(found: Found) -> Tensor:
    """softmax(-distance) over what was found, (Q, k); 0 where there is nothing. arXiv:1911.00172, equation 2."""
    far = found.distances.double()
    nearest = far.amin(1, keepdim=True)
    near = (torch.where(nearest.isfinite(), nearest, 0) - far).exp()
    return near / near.sum(1, keepdim=True).clamp(min=1e-300)


def probability(found: Found, tokens: Tensor, targets: Tensor) -> Tensor:
    """What the neighbours say of each target (Q,): all the weight of those that it followed, (Q,) float64."""
    return (weights(found) * (tokens == targets[:, None])).sum(1)


def distribution(found: Found, tokens: Tensor, vocab: int) -> Tensor:
    """What the neighbours say of every token: (Q, vocab) float64, its sum 1, or 0 where nothing was found."""
    share = weights(found)
    total = share.new_zeros(len(share), vocab)
    return total.scatter_add_(1, tokens.clamp(min=0), share.masked_fill(tokens < 0, 0))


def mixed_nats(nats: Tensor, neighbours: Tensor, mix: float) -> Tensor:
    """-ln(mix p_neighbours + (1 - mix) p_model) of each target: nats (Q,) of the model, neighbours (Q,) probabilities."""
    return -(mix * neighbours.double() + (1 - mix) * (-nats.double()).exp()).log()


def best_mix(nats: Tensor, neighbours: Tensor) -> float:
    """The mix, from 0 to 0.999, by which these targets are likeliest.

    The likelihood is concave in it, so its slope is followed by halving an interval: no chance, and no grid.
    """
    model, near = (-nats.double()).exp(), neighbours.double()
    low, high = 0.0, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = ((near - model) / (middle * near + (1 - middle) * model)).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return low


def require_mix(mix: float) -> None:
    """Raise ConfigError for a mix that could give a target no probability at all."""
    if not 0 <= mix < 1:
        raise ConfigError(
            f"a mix of {mix} is no share that leaves the model a say: tokens that were not found would have probability 0; "
            "give at least 0 and less than 1, such as 0.25"
        )
