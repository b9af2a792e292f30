"""Optimisers as values, and which parameters decay."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from formers.errors import ConfigError
from formers.spec import Site, Spec


class AdamW(Spec):
    """Adam with decoupled weight decay (arXiv:1711.05101), by torch's fused kernel."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from _shared_problems(self.learning_rate, self.weight_decay)
        if not all(0 <= beta < 1 for beta in self.betas):
            yield (
                f"betas={self.betas} must lie in [0, 1): each is the share of the past in an average",
                "betas=(0.9, 0.95)",
            )
        if self.eps <= 0:
            yield f"eps={self.eps} keeps a division from zero, so it must be above 0", "eps=1e-8"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters. Measured on a CPU, the fused kernel takes a fifth of foreach's time."""
        groups = decay_groups(model.named_parameters(), self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=self.eps, fused=True)


class Adafactor(Spec):
    """Second moments kept as a row and a column per matrix (arXiv:1804.04235), by torch's implementation.

    With a `Constant()` schedule the defaults are the paper's algorithm 4 for its relative step sizes: the step is
    min(learning_rate, step^-0.5) times the root mean square of the parameter, and updates are clipped at `clip`.
    eps: the paper's two epsilons, of the squared gradient and of the parameter's scale.

    Differs from the paper: the first epsilon is a floor of the second moment, not added to it.
    """

    learning_rate: float = 1e-2
    beta2_decay: float = -0.8
    eps: tuple[float, float] = (1e-30, 1e-3)
    clip: float = 1.0
    weight_decay: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from _shared_problems(self.learning_rate, self.weight_decay)
        if self.beta2_decay >= 0:
            yield f"beta2 = 1 - step^{self.beta2_decay} must rise to 1, so beta2_decay is below 0", "beta2_decay=-0.8"
        if min(self.eps) <= 0:
            yield f"eps={self.eps} keep divisions from zero, so both must be above 0", "eps=(1e-30, 1e-3)"
        if self.clip < 1:
            yield f"clip={self.clip} would shorten updates of root mean square 1, the normal ones", "clip=1.0"

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters."""
        groups = decay_groups(model.named_parameters(), self.weight_decay)
        # torch squares its first epsilon to get the floor. Its default, 1e-7, is also a floor of the mean squared
        # gradient, which swamps any gradient below 3e-4; the root of the paper's epsilon does not.
        eps = (math.sqrt(self.eps[0]), self.eps[1])
        return torch.optim.Adafactor(groups, lr=self.learning_rate, beta2_decay=self.beta2_decay, eps=eps, d=self.clip)


class AdamW8bit(Spec):
    """AdamW whose moments have 8 bits a number, by the package bitsandbytes. Dettmers et al. 2021, arXiv:2110.02861.

    Moments are quantised in blocks of 256 numbers with a scale each; those of parameters of fewer than 4096 numbers stay
    in fp32. A run of it does not go on as a run of `AdamW`, nor the other way round.
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from AdamW(self.learning_rate, self.betas, self.eps, self.weight_decay).problems(site)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters. Raises ConfigError where the package is not installed."""
        try:
            from bitsandbytes import optim
        except ImportError as error:
            raise ConfigError(
                "AdamW8bit() needs a package that is not installed: pip install bitsandbytes, or train with AdamW()"
            ) from error
        groups = decay_groups(model.named_parameters(), self.weight_decay)
        built: torch.optim.Optimizer = optim.AdamW8bit(groups, lr=self.learning_rate, betas=self.betas, eps=self.eps)
        return built


Optimizer = AdamW | AdamW8bit | Adafactor


def decay_groups(named: Iterable[tuple[str, Tensor]], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices and embeddings decay; biases, gains and whatever else is a vector do not.

    Parameters that are divided over other processes than the rest make groups of their own: an optimiser updates those of
    one group at once.
    """
    groups: dict[tuple[bool, Any], list[Tensor]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            rests = parameter.dim() < 2 or name.rpartition(".")[2].endswith("bias")
            groups.setdefault((rests, getattr(parameter, "device_mesh", None)), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda group: group[0][0])  # those that decay first
    return [{"params": params, "weight_decay": 0.0 if rests else weight_decay} for (rests, _), params in ordered]


def _shared_problems(learning_rate: float, weight_decay: float) -> Iterator[tuple[str, str]]:
    if not 0 < learning_rate < math.inf:
        yield f"learning_rate={learning_rate} must be above 0", "learning_rate=1e-3"
    if not 0 <= weight_decay < math.inf:
        yield f"weight_decay={weight_decay} must not be below 0", "weight_decay=0.1"
