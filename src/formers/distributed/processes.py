"""Several processes that train one model: each has some rows of every batch, and what they lose is added up."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

from formers.data.chance import mix
from formers.distributed import full
from formers.distributed.experts import divide
from formers.distributed.spec import Distribution
from formers.errors import CheckpointError, ConfigError
from formers.state import select, tree_map
from formers.train.processes import OneProcess, clipped
from formers.train.task import Batch

BUCKET = 1 << 23  # numbers that are added up at a time, so that a copy of all gradients never exists


class ManyProcesses(OneProcess):
    """This process among others, which have met.

    The loss of an update and its gradient are sums over the rows of all, so they are those of one process up to the order
    of additions. Parameters that a process holds whole are alike in all, bit for bit.
    """

    def __init__(self, spec: Distribution, mesh: DeviceMesh, device: torch.device) -> None:
        """mesh: two axes, "replicas" and "experts"."""
        super().__init__(swap=spec.swap)
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._spec, self._mesh, self._device = spec, mesh, device
        self._divided: set[Tensor] = set()

    def spread(self, model: nn.Module) -> None:
        """Give this process its part of a model that is whole and on its device: that of the first process."""
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)
        divided = self._divide_experts(model)
        if self._spec.shard == "full":
            self._shard(model, divided)
        self._divided = {parameter for module in divided for parameter in module.parameters()}

    def _divide_experts(self, model: nn.Module) -> list[nn.Module]:
        """The modules that now hold a share of their experts."""
        if self._spec.divide_experts == 1:
            return []
        return divide(model, self._mesh["experts"].get_group())

    def _shard(self, model: nn.Module, divided: list[nn.Module]) -> None:
        for module in divided:
            full.shard_alone(module, self._mesh["replicas"], "grouped", offload=self._spec.offload)
        full.shard(model, init_device_mesh(self._device.type, (self.size,)), offload=self._spec.offload)

    def own(self, parts: list[Batch]) -> list[Batch]:
        return [self._rows(part) for part in parts]

    def _rows(self, part: Batch) -> Batch:
        rows = len(next(iter(part.values())))
        if rows < self.size:
            raise ConfigError(
                f"a batch of {rows} rows does not go round {self.size} processes; give --batch {self.size}"
            )
        return {name: tensor.tensor_split(self.size)[self.rank] for name, tensor in part.items()}

    def share(self, own: Batch, part: Batch) -> float:
        first = next(iter(part))
        return len(own[first]) / len(part[first])

    def dropout_seed(self, seed: int) -> int:
        return seed if self.first else int(mix(seed, self.rank)[0]) >> 1

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """In the order of parameters, some at a time. One that no process has a gradient for is left without.

        The gradients of what is sharded were added up block by block, while the backward pass ran.
        """
        every = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        if not every:
            return
        reached = torch.tensor([parameter.grad is not None for parameter in every], dtype=torch.uint8)
        distributed.all_reduce(reached, distributed.ReduceOp.MAX)
        some = [parameter for parameter, is_reached in zip(every, reached.tolist(), strict=True) if is_reached]
        for group, those in self._groups(some):
            for bucket in _buckets(those):
                _add_up(bucket, group)

    def _groups(self, parameters: list[Tensor]) -> Iterator[tuple[ProcessGroup | None, list[Tensor]]]:
        """Parameters with the processes that hold the same ones."""
        yield None, [parameter for parameter in parameters if parameter not in self._divided]
        yield self._mesh["replicas"].get_group(), [p for p in parameters if p in self._divided]

    def clip(self, parameters: list[Tensor], largest: float | None) -> Tensor:
        """Every number of the gradient counts once, however many processes hold it."""
        squares = torch.zeros((), dtype=torch.float64, device=self._device)
        for parameter in parameters:
            if parameter.grad is not None:
                held = _local(parameter.grad)
                squares += held.double().square().sum().to(self._device) / self._copies(parameter)
        distributed.all_reduce(squares)
        norm = squares.sqrt().to(torch.promote_types(parameters[0].dtype, torch.float32))
        clipped(parameters, norm, largest)
        return norm

    def _copies(self, parameter: Tensor) -> int:
        """How many processes hold the numbers that this one holds of a parameter."""
        if isinstance(parameter, DTensor):
            return 1
        return self._mesh["replicas"].size() if parameter in self._divided else self.size

    def sum(self, scalars: list[Tensor]) -> list[Tensor]:
        together = torch.stack([scalar.double() for scalar in scalars])
        distributed.all_reduce(together)
        return [total.to(scalar.dtype) for total, scalar in zip(together, scalars, strict=True)]

    def any(self, asked: bool) -> bool:
        flag = torch.tensor([asked], dtype=torch.uint8)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def whole(self, tensors: Mapping[str, Tensor], of: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """One tensor at a time; the first process keeps them, in the CPU's memory."""
        found = {}
        for name, tensor in tensors.items():
            tensor = tensor.detach()
            parameter = tensors[name] if of is None else of[name]
            is_cut = parameter in self._divided and tensor.shape == parameter.shape
            made = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if is_cut:
                made = _gathered(made, self._mesh["experts"].get_group())
            if self.first:
                found[name] = made.cpu()
        return found

    def whole_shape(self, tensor: Tensor) -> tuple[int, ...]:
        ways = self._spec.divide_experts if tensor in self._divided else 1
        return (tensor.shape[0] * ways, *tensor.shape[1:]) if ways > 1 else tuple(tensor.shape)

    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        _local(tensor).copy_(_local(self.part(tensor, whole)))

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        if parameter in self._divided and whole.dim() == parameter.dim() and whole.shape[1:] == parameter.shape[1:]:
            group = self._mesh["experts"].get_group()
            whole = whole.chunk(group.size())[group.rank()]
        if isinstance(parameter, DTensor) and whole.shape == parameter.shape:
            mesh = parameter.device_mesh
            return distribute_tensor(whole.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)
        return whole

    def whole_state(self, carried: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if carried is None else tuple(tree_map(_gathered, piece) for piece in carried)

    def own_state(self, carried: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if carried is None:
            return None
        return tuple(self._own_rows_of(piece) for piece in carried)

    def _own_rows_of(self, piece: Any) -> Any:
        counts: list[int] = []
        tree_map(lambda tensor: counts.append(len(tensor)) or tensor, piece)  # type: ignore[func-returns-value]
        return select(piece, torch.arange(max(counts)).tensor_split(self.size)[self.rank])

    def after_evaluation(self, model: nn.Module) -> None:
        full.let_go(model)

    def wait(self) -> None:
        distributed.barrier()


def _local(tensor: Tensor) -> Tensor:
    """The numbers of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _buckets(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for parameter in parameters:
        alike = not bucket or (parameter.dtype, parameter.device) == (bucket[0].dtype, bucket[0].device)
        if not alike or sum(other.numel() for other in bucket) >= BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _add_up(parameters: list[Tensor], group: ProcessGroup | None) -> None:
    for parameter in parameters:
        if parameter.grad is None:  # another process has one
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])  # type: ignore[union-attr]
    distributed.all_reduce(flat, group=group)
    for parameter, summed in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(summed.view_as(parameter))  # type: ignore[union-attr]


def _gathered(tensor: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """The tensors of all processes one behind another, along their first axis. Raises CheckpointError if they differ."""
    shapes: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(shapes, tuple(tensor.shape), group=group)
    if len(set(shapes)) > 1:
        told = " and ".join(map(str, sorted(set(shapes))))
        raise CheckpointError(f"states of {told} numbers do not lie side by side; train this model in one process")
    parts = [torch.empty_like(tensor) for _ in shapes]
    distributed.all_gather(parts, tensor.contiguous(), group=group)
    return torch.cat(parts)
