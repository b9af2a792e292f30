"""Tensors that stand in for others: they have a shape, a type and a device, and hold no numbers."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
KNOWN = 1 << 22  # whole numbers in a tensor, up to which they are kept as they are
INDEX = {"argmax": 1, "argmin": 1, "max": 1, "min": 1, "topk": 2, "sort": 1, "argsort": 1}  # where their axis is given


class StandIn(Tensor):
    """A tensor on the CPU, as far as anybody can tell, over one on the `meta` device."""

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> "StandIn":
        made: StandIn = Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            layout=meta.layout,
            device=torch.device("cpu"),
        )
        made.meta = meta
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StandIn({tuple(self.shape)}, {self.dtype})"

    def data_ptr(self) -> int:
        """Nowhere: for native code that is not run."""
        return 0

    def tolist(self) -> Any:
        """Numbers that it might hold."""
        return invented(self).tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Outside a trace too, a stand-in is worked on as one."""
        return on_meta(func, args, kwargs or {})


def on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator makes of stand-ins: others, of the shapes that it says."""
    if _writes_in_place(func):
        return args[0]
    if not func._schema.returns:
        return None
    if func is aten._local_scalar_dense.default:
        return invented(args[0]).item()
    if func is aten.index.Tensor:
        args = (args[0], _whole(args[1]))
    elif torch.Tag.dynamic_output_shape in func.tags:
        return func(*tree_map_only(StandIn, invented, args), **tree_map_only(StandIn, invented, kwargs))
    bare_args, bare_kwargs = _bare(args), _bare(kwargs)
    if "device" in kwargs:
        bare_kwargs["device"] = torch.device("meta")
    out = func(*bare_args, **bare_kwargs)
    return _told(func, args, kwargs, tree_map_only(Tensor, StandIn, out))


def invented(tensor: Tensor) -> Tensor:
    """Real numbers in the place of those that nobody knows: ones, which say yes where it is asked whether."""
    return torch.ones(tensor.shape, dtype=tensor.dtype)


def _bare(given: Any) -> Any:
    """The same for the meta device; generators have nothing to draw."""
    bare = tree_map_only(Tensor, lambda t: t.meta if isinstance(t, StandIn) else t.to("meta"), given)
    return {name: value for name, value in bare.items() if name != "generator"} if isinstance(bare, dict) else bare


def _writes_in_place(func: Any) -> bool:
    """Whether it changes its first argument's numbers alone: then there is nothing to do."""
    name = func.overloadpacket.__name__
    return name.endswith("_") and not name.endswith("__") and name not in RESHAPING and len(func._schema.returns) == 1


RESHAPING = frozenset({"resize_", "transpose_", "t_", "squeeze_", "unsqueeze_", "set_", "as_strided_", "swapaxes_"})


def _whole(indices: Any) -> list[Tensor | None]:
    """An index by whole numbers, which tell the shape, in the place of one by yes and no, which does not."""
    found: list[Tensor | None] = []
    for t in indices:
        if t is not None and t.dtype == torch.bool:
            found += (invented(t) if isinstance(t, StandIn) else t).nonzero().unbind(1)
        else:
            found.append(t)
    return found


def _told(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The output with whole numbers where it says which of several: evenly many of each, as a good router has it."""
    name = func.overloadpacket.__name__
    if name not in INDEX:
        return out
    place, first = INDEX[name], args[0]
    dim = kwargs.get("dim", args[place] if len(args) > place else -1)
    if not isinstance(dim, int) or not first.dim():
        return out
    among = first.shape[dim]

    def indices(t: Tensor) -> Tensor:
        if t.dtype != torch.int64 or t.numel() > KNOWN:
            return t
        if t.dim() < first.dim():
            return (torch.arange(t.numel()) % among).view(t.shape)
        steps = torch.arange(t.shape[dim]).view([-1 if i == dim % t.dim() else 1 for i in range(t.dim())])
        return steps.expand(t.shape).contiguous()

    return tree_map_only(Tensor, indices, out)
