"""Fully sharded data parallelism: which modules are gathered and let go together."""

import warnings
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from formers.block import StackLayer
from formers.recomputed import RecomputedLayer

# What else than `forward` runs a model's parameters from outside.
ENTRANCES = ("start", "step", "read")


def shard(model: nn.Module, mesh: DeviceMesh, *, offload: bool) -> None:
    """Shard a model in place over a mesh: each part of its depth by itself, and the rest, embeddings and head, as one.

    What a block's parameters are used for lies between its `forward` and the backward pass of that. So a layer that runs
    its blocks in another way, as a reversible stack does in its backward pass, is one part with all of them: while it
    runs a process holds its parameters whole.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)  # of changes in place, which no layer makes
    for part in _parts(model):
        _sharded(part, mesh, offload)
    _sharded(model, mesh, offload)
    for name in ENTRANCES:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def shard_alone(module: nn.Module, mesh: DeviceMesh, entrance: str, *, offload: bool) -> None:
    """Shard a module over a mesh of its own, which runs by `forward` or by another method of it."""
    _sharded(module, mesh, offload)
    register_fsdp_forward_method(module, entrance)


def _sharded(module: nn.Module, mesh: DeviceMesh, offload: bool) -> None:
    """Gradients are summed over processes and not averaged: losses are shares of the whole batch's already."""
    policy: OffloadPolicy = CPUOffloadPolicy() if offload else OffloadPolicy()
    single = {
        parameter for parameter in module.parameters() if not parameter.dim()
    }  # cannot be cut: every process has it
    made = fully_shard(module, mesh=mesh, offload_policy=policy, ignored_params=single)
    made.set_gradient_divide_factor(1.0)
    made.set_force_sum_reduction_for_comms(True)  # gloo has no other


def let_go(model: nn.Module) -> None:
    """Let go of gathered parameters, as after an evaluation that ran no backward pass."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _parts(model: nn.Module) -> list[Any]:
    """The blocks of every depth, those within others before these; of blocks that are recomputed, each."""
    found: list[Any] = []
    for module in model.modules():
        if isinstance(module, StackLayer):
            for block in module.blocks:
                found += block.blocks if isinstance(block, RecomputedLayer) else [block]
    return [part for part in reversed(found) if next(part.parameters(), None) is not None]
