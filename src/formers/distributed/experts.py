"""Which experts of a model are divided over processes."""

from typing import Any

from torch import nn
from torch.distributed import ProcessGroup

from formers.distributed.exchange import DividedExperts
from formers.errors import ConfigError
from formers.experts import SwitchLayer


def mixtures(model: nn.Module) -> list[Any]:
    """The layers of a model whose experts can be divided."""
    return [module for module in model.modules() if isinstance(module, SwitchLayer)]


def require_divisible(model: nn.Module, ways: int) -> None:
    """Raise ConfigError unless the experts of every mixture go into so many equal shares."""
    found = mixtures(model)
    if not found:
        raise ConfigError(
            f"divide_experts={ways} divides experts over processes, and this model has none: leave it out"
        )
    for layer in found:
        if layer.spec.experts % ways:
            divisor = max(n for n in range(1, ways) if layer.spec.experts % n == 0)
            raise ConfigError(
                f"{layer.spec.experts} experts cannot be divided equally over {ways} processes; give divide_experts={divisor}"
            )


def divide(model: nn.Module, group: ProcessGroup) -> list[nn.Module]:
    """Leave each process of a group its share of the experts; gives what holds them now."""
    divided: list[nn.Module] = []
    for layer in mixtures(model):
        layer.experts = DividedExperts(layer.experts, group)
        divided.append(layer.experts)
    return divided
