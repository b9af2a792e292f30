"""Sparse layers, natively and by PyTorch: on every kernel that runs here, with weights of every type."""

from typing import Any

import pytest
import torch
from parts import Emit, built, program, ragged, run, table
from small import KERNELS
from torch import Tensor, nn

from formers import GLU, MLP, Switch
from formers.attention import MultConv
from formers.attention.project import join_heads
from formers.attention.sparse_cross import SparseQueries
from formers.attention.sparse_project import Convolutional, LowRank, Modular, Multiplicative, MultiplicativeModular
from formers.call import Call
from formers.native.engine import lower  # noqa: F401 - it brings the rules
from formers.native.engine.rules import head_rule, output_rule, projection_rule, query_rule, sublayer_rule
from formers.places import Places
from formers.recurrence import SRUBranch
from formers.sparse import BlockFF, SparseFF, SwitchFF
from formers.sparse.head import LocalHead, LowRankHead, Mixed, MultiplicativeHead
from formers.spec.core import Spec

# Activations are fp32; with weights in int8 and int4 some products round them, to 8 bits or to bf16.
CLOSE = {"fp32": 2e-5, "bf16": 2e-4, "int8": 0.05, "int4": 0.05}

FEED_FORWARDS = [
    SparseFF(hidden=256, block=16, rank=6),
    SparseFF(hidden=240, block=12, rank=5, weighted=True),
    SparseFF(hidden=1024, block=128, rank=3),
    BlockFF(hidden=256, experts=8),
    SwitchFF(hidden=240, experts=5),
    Switch(MLP(96, "gelu"), 5, top_k=2),
    SRUBranch(depth=2, width=24),
]
HEADS = [
    MultiplicativeHead(modules=4),
    MultiplicativeHead(modules=1, bias=False),
    LowRankHead(rank=32),
    LocalHead(modules=4, width=3),
    Mixed(MultiplicativeHead(modules=3), 0.5),
]
PROJECTIONS = [
    MultConv(),
    MultConv(modules=16, length=1),
    MultConv(modules=8, share_qk="same", width=1),
    MultConv(share_qk="unit", length=2),
    MultConv(share_qk="average", length=4, width=5),
    MultConv(modules=2, values="fixed"),
    MultConv(values="original"),
    Convolutional(length=2, width=3),
    Multiplicative(modules=32),
    MultiplicativeModular(),
    Modular(width=3),
    LowRank(rank=32),
]
OUTPUTS = [MultConv(output=kind) for kind in ("none", "mult", "conv", "multconv")] + [
    Modular(),
    MultiplicativeModular(),
]


def named(spec: Any) -> str:
    return repr(spec).replace(" ", "")


def sublayer(part: nn.Module) -> Emit:
    def emit(build: Any, x: int) -> int:
        sublayer_rule.apply(part, build, x, y := build.register(build.width(x)), False)
        return y

    return emit


def heads_of(part: nn.Module) -> Emit:
    def emit(build: Any, x: int) -> int:
        made = projection_rule.apply(part, build, x)
        build.op("concatenate", reads=[m.register for m in made], writes=[y := build.register(3 * build.width(x))])
        return y

    return emit


def projected(part: Any, x: Tensor) -> Tensor:
    """Queries, keys and values side by side."""
    seen = part.prepare(x, places(x), None)[0] if part.looks_back else x
    return torch.cat([join_heads(made) for made in part.together(seen)], -1)


def places(x: Tensor) -> Places:
    return Places.run(0, x.shape[1])


def same(found: Tensor, wanted: Tensor, dtype: str) -> None:
    """Equal, but for an error measured by the numbers' own size."""
    size = float(wanted.std())
    torch.testing.assert_close(found / size, wanted / size, rtol=0, atol=CLOSE[dtype])


def agree(emit: Emit, wanted: Any, dim: int, count: int, dtype: str, kernel: str) -> None:
    """Token by token for three streams, by two threads; and each stream at once, by one."""
    made = program(emit, dim, count, dtype)
    tokens = torch.randint(count, (3, 6), generator=torch.Generator().manual_seed(2))
    expected = wanted(table(count, dim)[tokens])
    same(run(made, tokens, kernel, at_once=False, threads=2), expected, dtype)
    same(run(made, tokens, kernel, at_once=True), expected, dtype)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


# fp32 on every kernel; other types where their code differs.
PAIRS = [("fp32", k) for k in KERNELS] + [
    (dtype, k) for dtype in ("bf16", "int8", "int4") for k in dict.fromkeys(("plain", *KERNELS[-1:]))
]
each_kernel = pytest.mark.parametrize("kernel", KERNELS)
each_type_and_kernel = pytest.mark.parametrize(("dtype", "kernel"), PAIRS if KERNELS else [])


@each_type_and_kernel
@pytest.mark.parametrize("spec", FEED_FORWARDS, ids=named)
def test_feed_forwards_and_recurrences(spec: Spec, dtype: str, kernel: str) -> None:
    part = built(spec, dtype)
    agree(sublayer(part), lambda x: part(x, Call(places(x))).y, 64, 64, dtype, kernel)


@pytest.mark.parametrize(("dtype", "kernel"), [pair for pair in PAIRS if pair[0] in ("fp32", "bf16")])
def test_gated_experts(dtype: str, kernel: str) -> None:
    """Where activations are fp32: in the product of two factors that are rounded, both roundings meet."""
    part = built(Switch(GLU(64), 4), dtype)
    agree(sublayer(part), lambda x: part(x, Call(places(x))).y, 64, 64, dtype, kernel)


@each_type_and_kernel
@pytest.mark.parametrize("spec", HEADS, ids=named)
def test_heads(spec: Spec, dtype: str, kernel: str) -> None:
    part = built(spec, dtype, vocab=250)
    agree(lambda build, x: head_rule.apply(part, build, x, None), lambda x: part(x, None), 64, 250, dtype, kernel)


@each_kernel
def test_a_head_of_many_panels(kernel: str) -> None:
    part = built(MultiplicativeHead(modules=2), vocab=2600)
    agree(lambda build, x: head_rule.apply(part, build, x, None), lambda x: part(x, None), 64, 2600, "fp32", kernel)


@each_type_and_kernel
@pytest.mark.parametrize("spec", PROJECTIONS, ids=named)
def test_projections(spec: Spec, dtype: str, kernel: str) -> None:
    part = built(spec, dtype, dim=96)
    agree(heads_of(part), lambda x: projected(part, x), 96, 288, dtype, kernel)


@each_type_and_kernel
def test_as_many_modules_as_the_widest_models_have(dtype: str, kernel: str) -> None:
    part = built(MultConv(), dtype, dim=64 * 16, heads=64)
    agree(heads_of(part), lambda x: projected(part, x), 1024, 3072, dtype, kernel)


@each_type_and_kernel
@pytest.mark.parametrize("spec", OUTPUTS, ids=named)
def test_outputs_are_added(spec: Spec, dtype: str, kernel: str) -> None:
    part: Any = built(spec, dtype)

    def emit(build: Any, x: int) -> int:
        build.op("copy", reads=[x], writes=[y := build.register(64)], ints=[0])
        output_rule.apply(part, build, x, y, True)
        return y

    def wanted(x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (4, -1)).transpose(1, 2)
        return x + (part.finish(heads, places(x), None)[0] if hasattr(part, "finish") else part.output(heads))

    agree(emit, wanted, 64, 64, dtype, kernel)


@each_type_and_kernel
def test_sparse_queries(dtype: str, kernel: str) -> None:
    part: Any = built(SparseQueries(), dtype)
    agree(
        lambda build, x: query_rule.apply(part, build, x).register,
        lambda x: join_heads(part.queries(part.prepare(x, places(x), None)[0])),
        64,
        64,
        dtype,
        kernel,
    )


@each_kernel
@pytest.mark.parametrize("spec", [MultConv(length=4, output="conv"), SRUBranch(width=24)], ids=named)
def test_streams_of_different_lengths_do_not_meet(spec: Any, kernel: str) -> None:
    part: Any = built(spec)
    projects = isinstance(spec, MultConv)
    made = program(heads_of(part) if projects else sublayer(part), 64, 192 if projects else 64, "fp32")
    streams = [list(range(length)) for length in (2, 30, 7, 55)]
    for tokens, found in zip(streams, ragged(made, streams, kernel), strict=True):
        x = table(192 if projects else 64, 64)[torch.tensor([tokens])]
        same(found[None], projected(part, x) if projects else part(x, Call(places(x))).y, "fp32")


@each_type_and_kernel
@pytest.mark.parametrize("streams", [16, 17, 64])
def test_many_streams_at_once(streams: int, dtype: str, kernel: str) -> None:
    part = built(SparseFF(hidden=256, block=16, rank=6), dtype)
    tokens = torch.arange(streams)[:, None] % 64
    made = program(sublayer(part), 64, 64, dtype)
    x = table(64, 64)[tokens]
    same(run(made, tokens, kernel, at_once=False, threads=2), part(x, Call(places(x))).y, dtype)


@each_kernel
def test_the_number_of_threads_changes_nothing(kernel: str) -> None:
    """Sums are cut into pieces by the size of the layer alone."""
    part = built(SparseFF(hidden=4096, block=16, rank=16), dim=256)
    made = program(sublayer(part), 256, 256, "fp32")
    tokens = torch.arange(8)[None]
    one, three = (run(made, tokens, kernel, at_once=False, threads=threads) for threads in (1, 3))
    torch.testing.assert_close(one, three, rtol=0, atol=0)


@each_kernel
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_not_hidden(number: float, kernel: str) -> None:
    part = built(SparseFF(hidden=256, block=16, rank=6))
    part.up.weight.fill_(number)
    made = program(sublayer(part), 64, 64, "fp32")
    assert not run(made, torch.tensor([[3]]), kernel, at_once=True).isfinite().any()
