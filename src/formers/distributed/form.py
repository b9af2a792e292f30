"""From a distribution to the processes that train, with everything that stands against it told first."""

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from formers.distributed.environment import told
from formers.distributed.experts import require_divisible
from formers.distributed.processes import ManyProcesses
from formers.distributed.spec import Distribution
from formers.errors import ConfigError
from formers.train.device import AUTO, pick_device
from formers.train.optimize import Adafactor, AdamW8bit
from formers.train.processes import OneProcess
from formers.train.spec import TrainSpec


def form(
    model: nn.Module, training: TrainSpec, device: str = AUTO, spec: Distribution = Distribution()
) -> tuple[OneProcess, torch.device]:
    """The processes that have met, or this one alone, and where it computes; the model is there, spread over them.

    Raises ConfigError, the model unchanged, for what cannot be distributed in this way.
    """
    spec.check()
    place = _own_device(device)
    _require_gpu(spec, place)
    if not distributed.is_initialized():
        _require_nothing_divided(spec)
        model.to(place)
        return OneProcess(swap=spec.swap), place
    size = distributed.get_world_size()
    _require_rows(training, size)
    if spec.shard == "full":
        _require_shardable(training)
    if spec.divide_experts > 1:
        _require_groups(spec, size)
        require_divisible(model, spec.divide_experts)
    sides = (size // spec.divide_experts, spec.divide_experts)
    mesh = init_device_mesh(place.type, sides, mesh_dim_names=("replicas", "experts"))
    processes = ManyProcesses(spec, mesh, place)
    processes.spread(model.to(place))
    return processes, place


def _own_device(name: str) -> torch.device:
    """The device of that name; of several processes on one machine each has a GPU of its own."""
    device = pick_device(name)
    at = told() if distributed.is_initialized() else None
    if at is None or device.index is not None or device.type == "cpu":
        return device
    if device.type == "cuda":
        device = pick_device(f"cuda:{at.local}")
        torch.cuda.set_device(device)
        return device
    if name == AUTO:
        return torch.device("cpu")
    raise ConfigError(f"processes cannot add up gradients on {device.type}; use device=cpu")


def _require_gpu(spec: Distribution, device: torch.device) -> None:
    for name in ("offload", "swap"):
        if getattr(spec, name) and device.type != "cuda":
            raise ConfigError(
                f"{name}=True moves what a GPU holds into the CPU's memory, and this run is on {device.type}, where "
                "everything is there already; leave it out"
            )


def _require_nothing_divided(spec: Distribution) -> None:
    if spec.shard == "full" or spec.divide_experts > 1:
        raise ConfigError(
            f"{spec!r} divides a model over processes, and there is one; start several with torchrun --nproc-per-node 2 "
            "-m formers train ..."
        )


def _require_groups(spec: Distribution, size: int) -> None:
    ways = spec.divide_experts
    if size % ways:
        raise ConfigError(
            f"{size} processes do not make groups of {ways}, over which divide_experts={ways} divides experts; start "
            f"{-(-size // ways) * ways} of them"
        )


def _require_rows(training: TrainSpec, size: int) -> None:
    pieces = size * training.accumulation
    if training.batch % pieces:
        told = f" in {training.accumulation} pieces each" if training.accumulation > 1 else ""
        raise ConfigError(
            f"a batch of {training.batch} rows does not split equally over {size} processes{told}; "
            f"give --batch {-(-training.batch // pieces) * pieces}"
        )


def _require_shardable(training: TrainSpec) -> None:
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(
            f"PyTorch {torch.__version__} cannot sum up gradients as sharding does here; install 2.13 or newer"
        )
    if isinstance(training.optimizer, Adafactor):
        raise ConfigError(
            "Adafactor scales a step by the whole matrix, of which each process has some rows where shard='full'; train "
            "with AdamW(), or with shard='data'"
        )
    if isinstance(training.optimizer, AdamW8bit):
        raise ConfigError(
            "AdamW8bit keeps its moments in blocks of whole parameters, which shard='full' cuts; train with AdamW(), or "
            "with shard='data'"
        )
    if training.compile:
        raise ConfigError(
            "torch.compile would compile around each gathering of parameters where shard='full'; leave --compile out, or "
            "train with shard='data'"
        )
