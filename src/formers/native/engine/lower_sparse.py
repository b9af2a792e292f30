"""Rules for sparse feed-forwards and experts, and for the recurrence beside them."""

from typing import Any

import torch
from torch.nn import functional as F

from formers.errors import NoRuleError
from formers.experts.feedforward import Experts
from formers.experts.switch import SwitchLayer
from formers.feedforward import FeedForward
from formers.native.engine import lower_projections  # noqa: F401 - it brings its rules
from formers.native.engine.blocks import LANES, choices, units
from formers.native.engine.build import Builder, activation_number, linear
from formers.native.engine.pieces import pieces_of
from formers.native.engine.rules import skip_rule, sublayer_rule
from formers.native.engine.weights import up_to
from formers.recurrence.sru import SRUBranchLayer
from formers.sparse.experts import BlockFFLayer, SwitchFFLayer
from formers.sparse.feedforward import SparseFFLayer

# What chooses reads its input through a small product, in which quantised weights would have the input rounded, too: where
# two are nearly the largest the other would be chosen. So it is kept in halves.
CHOOSING = {"int8": "bf16", "int4": "bf16"}
MOST_MET = 8  # experts that a token meets
BLOCKS = 24  # of a piece, at least: eight units are read side by side, and three times that hides how it begins


@sublayer_rule(SparseFFLayer)
def _(layer: SparseFFLayer, build: Builder, x: int, into: int, add: bool) -> None:
    first, second, spec = layer.controller_in.weight, layer.controller_out, layer.spec
    dim, among, width = build.width(x), spec.block, up_to(spec.block, LANES)
    bias = second.bias.detach().unflatten(0, (-1, among))
    matrices = [
        build.matrix(F.pad(first.detach(), (0, 0, 0, len(first) % 2)), dtype=CHOOSING.get(build.dtype)),
        build.matrix(choices(second.weight.detach(), among, build.dtype)),
        build.matrix(units(layer.up.weight.detach(), layer.down.weight.detach())),
    ]
    blocks = spec.hidden // among
    pieces = min(pieces_of(build.dtype, blocks * (2 * dim + spec.rank * width)), max(1, blocks // BLOCKS))
    scratch = build.register(up_to(spec.rank, 2)), build.register(pieces * up_to(dim, LANES))
    build.op(
        "sparse_feedforward",
        reads=[x],
        writes=[into, *scratch],
        ints=[among, width, pieces, add, spec.weighted],
        matrices=matrices,
        vectors=[build.vector(F.pad(bias, (0, width - among), value=-torch.inf)), build.vector(layer.down.bias)],
    )
    build.release(*scratch)


@sublayer_rule(BlockFFLayer, SwitchFFLayer)
def _(layer: Any, build: Builder, x: int, into: int, add: bool) -> None:
    dim, experts = build.width(x), layer.spec.experts
    each = layer.spec.hidden // experts
    pieces = pieces_of(build.dtype, 2 * each * dim)
    scratch = build.register(up_to(experts, LANES)), build.register(pieces * up_to(dim, LANES))
    build.op(
        "experts",
        reads=[x],
        writes=[into, *scratch],
        ints=[each, pieces, add, type(layer) is SwitchFFLayer],
        matrices=[
            build.matrix(layer.controller.weight, dtype=CHOOSING.get(build.dtype)),
            build.matrix(units(layer.up.weight.detach(), layer.down.weight.detach())),
        ],
        vectors=[build.vector(layer.down.bias)],
    )
    build.release(*scratch)


@sublayer_rule(SwitchLayer)
def _(layer: SwitchLayer, build: Builder, x: int, into: int, add: bool) -> None:
    spec, experts = layer.spec, layer.experts
    if type(experts) is not Experts or not isinstance(spec.expert, FeedForward):
        raise NoRuleError(f"the native engine has no rule for {type(experts).__name__}, which keeps experts")
    if spec.eval_capacity is not None:
        raise NoRuleError("the native engine has no rule for experts with a limit of tokens: eval_capacity=None")
    if spec.top_k > MOST_MET:
        raise NoRuleError(
            f"the native engine has no rule for tokens that meet {spec.top_k} experts; {MOST_MET} at most"
        )
    reads = [experts.up] if experts.gate is None else [experts.gate, experts.up]
    biases = [linear.bias.detach() for linear in reads if linear.bias is not None]
    rows = len(reads) * spec.expert.hidden
    scratch = build.register(up_to(spec.experts, LANES)), build.register(spec.top_k * rows)
    build.op(
        "switch_experts",
        reads=[x],
        writes=[into, *scratch],
        ints=[spec.expert.hidden, spec.top_k, activation_number(spec.expert.activation), add],
        matrices=[
            build.matrix(layer.router.weight, dtype=CHOOSING.get(build.dtype)),
            build.matrix(torch.cat([linear.weight.detach() for linear in reads], 1).flatten(0, 1)),
            build.matrix(experts.down.weight.detach().flatten(0, 1)),
        ],
        vectors=[
            build.vector(torch.cat(biases, 1) if biases else None),
            build.vector(experts.down.bias),
        ],
    )
    build.release(*scratch)


@skip_rule(SwitchLayer)
def _(layer: SwitchLayer, build: Builder, x: int) -> None:
    """Nothing is remembered."""


@sublayer_rule(SRUBranchLayer)
def _(branch: SRUBranchLayer, build: Builder, x: int, into: int, add: bool) -> None:
    width = branch.down.out_features
    inner, gates = build.register(width), build.register(3 * width)
    linear(build, x, inner, branch.down)
    for unit in branch.units:
        linear(build, inner, gates, unit.proj)
        carried = build.cache("fixed", heads=1, capacity=1, width=width)
        build.op("recurrent", reads=[gates], writes=[inner], caches=[carried])
    linear(build, inner, into, branch.up, add=add)
    build.release(inner, gates)
