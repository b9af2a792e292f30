"""A run of which only the shapes are worked out, and how much memory it would take."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from formers.native import library
from formers.native.visits import refuses_visits
from formers.plan.ledger import Ledger
from formers.plan.stand_in import KNOWN, StandIn, aten, on_meta
from formers.tasks import loss

EMPTY = (aten.empty, aten.empty_strided, aten.empty_like, aten.new_empty, aten.new_empty_strided)
ATTEND: Any = functional.scaled_dot_product_attention
SMALL = 1024  # fractions in a tensor, up to which they are kept if they follow from what is known


class Trace(TorchDispatchMode):
    """Code in this context runs on stand-ins, as it would on the CPU; whole numbers that are known stay known.

    Where a choice depends on fractions, as that of an expert does, it is made evenly. ledger: the bytes that would be alive.
    moved: the bytes that operators would have read and written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.moved = Ledger(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "formers":  # of ours, the body says more than its shapes: it may need room of its own
            with self:
                return torch._library.custom_ops.OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        out = self._run(func, args, kwargs)
        tensors = [t for t in tree_iter(out) if isinstance(t, Tensor)]
        for t in tensors:
            self.ledger.see(t)
        if func is aten._to_copy.default and self.ledger.purpose_of(args[0]) == "weights":
            self.ledger.name(out, "copies")  # autocast's, in its precision, which it keeps to the end of a pass
        if not func.is_view:
            read = (t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor))
            self.moved += sum(t.numel() * t.element_size() for t in (*read, *tensors))
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
        if any(isinstance(t, StandIn) for t in given):
            return on_meta(func, args, kwargs)
        if not given:
            shape = func(*args, **{**kwargs, "device": torch.device("meta")}) if "device" in _arguments(func) else None
            if isinstance(shape, Tensor) and (_is_fraction(shape) or shape.numel() > KNOWN):
                return StandIn(shape)
        out = func(*args, **kwargs)
        if func.overloadpacket in EMPTY:
            out.zero_()
        if isinstance(out, Tensor) and _is_fraction(out) and out.numel() > SMALL and not func._schema.is_mutable:
            return StandIn(out.to("meta"))
        return out


def _arguments(func: Any) -> set[str]:
    return {argument.name for argument in func._schema.arguments}


def _is_fraction(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _fused(*given: Any, dropout_p: float = 0.0, **named: Any) -> Tensor:
    """Attention as GPUs run it, fused with dropout too, which the CPU's kernel has not: without, that keeps as much."""
    out: Tensor = ATTEND(*given, **named)
    return out


class _Silent:
    """The native library, of which every function says that all went well and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: b"plain" if name == "formers_fastest" else 0

    __getitem__ = __getattr__


@contextmanager
def tracing(*, gpu: bool = False) -> Iterator[Trace]:
    """A `Trace`, in which native code is called, where there is any, and does not run; on a GPU there is none.

    Of the pieces that logits are worked on in, which are alike, two are: a large vocabulary has thousands.
    """
    refuses_visits()  # it looks once whether the library is of these sources
    native = "the native kernels run on the CPU" if gpu else library.open_library()
    opened = native if isinstance(native, str) else _Silent()
    with ExitStack() as patches:
        patches.enter_context(torch.random.fork_rng(devices=[]))
        patches.enter_context(mock.patch.object(library, "open_library", lambda: opened))
        patches.enter_context(mock.patch.object(loss, "range", lambda *ends: range(*ends)[:2], create=True))
        # it draws until all numbers lie within its bounds, and nobody knows whether these do
        patches.enter_context(mock.patch.object(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor))
        if gpu:
            patches.enter_context(mock.patch.dict(loss.PIECE, {"cpu": loss.LARGE_PIECE}))
            patches.enter_context(mock.patch.object(functional, "scaled_dot_product_attention", _fused))
        yield patches.enter_context(Trace())
