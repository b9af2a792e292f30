"""Small Decision Transformers in float64, and rows for them."""

from typing import Any

import torch
from torch import Tensor, nn

from formers import make
from formers.control.spaces import Choices, Numbers, Space

SPACES: dict[str, dict[str, Space]] = {
    "choices": {"observation": Choices(6), "action": Choices(4)},
    "numbers": {"observation": Numbers(3), "action": Numbers(2, (-1.0, -3.0), (1.0, 2.0))},
    "unbounded": {"observation": Numbers(3), "action": Numbers(2)},
}
SMALL: dict[str, Any] = {"dim": 24, "depth": 2, "heads": 2, "horizon": 16, "context": 5, "return_scale": 4.0}


def small(kind: str = "numbers", seed: int = 0, **changes: Any) -> nn.Module:
    """A model whose parameters are all awake."""
    torch.manual_seed(seed)
    model = make("decision_transformer", **{**SMALL, **SPACES[kind], **changes}).build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def elements(space: Space, rows: tuple[int, ...], chance: torch.Generator) -> Tensor:
    if isinstance(space, Choices):
        return torch.randint(0, space.count, rows, generator=chance)
    return torch.randn(*rows, *space.shape, generator=chance, dtype=torch.float64)


def steps(model: nn.Module, batch: int, length: int, seed: int = 1) -> dict[str, Tensor]:
    """Returns, observations, actions and timesteps of some rows, by the names that the model takes them under."""
    chance, spec = torch.Generator().manual_seed(seed), model.spec.embedding
    return {
        "returns": 5 * torch.randn(batch, length, generator=chance, dtype=torch.float64),
        "observations": elements(spec.observation, (batch, length), chance),
        "actions": elements(spec.action, (batch, length), chance),
        "timesteps": torch.arange(length).expand(batch, -1).contiguous(),
    }


def some(
    rows: dict[str, Tensor], start: int, stop: int, waiting: bool = False, chosen: bool = True
) -> dict[str, Tensor]:
    """Steps start..stop - 1 as a call that goes on: behind the action that the call before waits for, and with or without
    the action of the last one."""
    cut = {name: tensor[:, start:stop] for name, tensor in rows.items()}
    cut["actions"] = rows["actions"][:, start - waiting : stop - (not chosen)]
    return cut
