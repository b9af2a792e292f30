"""Operations of the layers that sparse projections and heads are made of, each written to a register or added to it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from formers.errors import NoRuleError
from formers.native.engine.blocks import DEPTH, LANES, gates, panel_width, panels
from formers.native.engine.build import ACTIVATIONS, Builder, linear
from formers.native.engine.pieces import pieces_of
from formers.native.engine.weights import up_to
from formers.sparse.convolution import ModuleConv
from formers.sparse.low_rank import LowRankLinear
from formers.sparse.modular import ModularLinear
from formers.sparse.multiplicative import MultiplicativeLinear

MANY = 16  # panels from which on pieces are cut from the outputs
MOST_CONVOLVED = 2048 * DEPTH  # inputs that an output of a convolution reads of one token


def product(build: Builder, x: int, into: int, layer: Any, add: bool = False) -> None:
    """Any of the layers that work on each token by itself. Raises NoRuleError for another."""
    if type(layer) is MultiplicativeLinear:
        _multiplicative(build, x, into, layer, add)
    elif type(layer) is ModularLinear:
        _modular(build, x, into, layer, add)
    elif type(layer) is LowRankLinear:
        _low_rank(build, x, into, layer, add)
    elif type(layer) is nn.Sequential:
        _in_turn(build, x, into, layer, add)
    elif isinstance(layer, nn.Linear):
        linear(build, x, into, layer, add=add)
    else:
        raise NoRuleError(f"the native engine has no rule for {type(layer).__name__}, a product: decode with PyTorch")


def outputs(layer: Any) -> int:
    """How wide the output of such a layer is."""
    if type(layer) is nn.Sequential:
        return outputs(layer[-1])
    if type(layer) is MultiplicativeLinear:
        return len(layer.gate) * layer.mix.shape[1]
    if type(layer) is ModularLinear:
        return layer.weight.shape[0] * layer.weight.shape[2]
    return len(layer.up if type(layer) is LowRankLinear else layer.weight)


def copy(build: Builder, x: int, into: int, add: bool = False) -> None:
    """The same numbers, the first of them if `into` is narrower."""
    build.op("add" if add else "copy", reads=[x], writes=[into], ints=() if add else [0])


def convolutions(
    build: Builder, reads: Sequence[int], writes: Sequence[int], layers: Sequence[ModuleConv], add: bool = False
) -> None:
    """Several that see the same: modules of one register, or of several side by side."""
    modules, length = layers[0].modules_in_row, layers[0].length
    inputs, widest = layers[0].weight.shape[1], max(layer.width for layer in layers)
    if widest * inputs > MOST_CONVOLVED:
        raise NoRuleError(
            f"the native engine has no rule for a ModuleConv that sees {widest * inputs} numbers of a token"
        )
    beside, kernels, matrices = widest // 2, [], []
    for layer in layers:
        taps = layer.weight.detach().permute(2, 3, 1, 0).flatten(1, 2)  # length, inputs module by module, outputs
        matrices.append(build.matrix(panels(list(taps), build.dtype)))
        kernels += [layer.width, panel_width(taps.shape[2])]
    slot = up_to((up_to(modules, LANES) + 2 * beside) * inputs + DEPTH, DEPTH)
    build.op(
        "module_convolution",
        reads=reads,
        writes=writes,
        ints=[modules, inputs, length, beside, add, *kernels],
        matrices=matrices,
        vectors=[build.vector(layer.bias) for layer in layers],
        caches=[build.cache("fixed", heads=1, capacity=length, width=slot)],
    )


def _multiplicative(build: Builder, x: int, into: int, layer: MultiplicativeLinear, add: bool) -> None:
    gate, mix = layer.gate.detach(), layer.mix.detach()
    modules, panel, width = len(gate), panel_width(mix.shape[1]), up_to(mix.shape[1], LANES)
    of_outputs = width // panel >= MANY
    most = width // panel if of_outputs else up_to(len(mix), DEPTH) // DEPTH
    pieces = min(most, pieces_of(build.dtype, gate.numel() + mix.numel()))
    sums = build.register(modules * width * (1 if of_outputs else pieces))
    build.op(
        "multiplicative",
        reads=[x],
        writes=[into, sums],
        ints=[modules, panel, pieces, add, of_outputs],
        matrices=[build.matrix(gates(gate, build.dtype)), build.matrix(panels([mix], build.dtype, of_outputs))],
        vectors=[build.vector(layer.bias)],
    )
    build.release(sums)


def _modular(build: Builder, x: int, into: int, layer: ModularLinear, add: bool) -> None:
    beside = (layer.width - 1) * build.width(x) // len(layer.weight)
    circle, made = build.register(build.width(x) + beside), build.register(outputs(layer)) if add else into
    rows: Tensor = layer.weight.detach().transpose(1, 2).flatten(0, 1)
    matrices, vectors = [build.matrix(rows)], [build.vector(layer.bias)]
    build.op("modular", reads=[x], writes=[made, circle], ints=[len(layer.weight)], matrices=matrices, vectors=vectors)
    build.release(circle)
    if add:
        copy(build, made, into, add=True)
        build.release(made)


def _low_rank(build: Builder, x: int, into: int, layer: LowRankLinear, add: bool) -> None:
    inner = build.register(len(layer.down))
    _plain(build, x, inner, layer.down, layer.down_bias)
    _plain(build, inner, into, layer.up, layer.up_bias, add)
    build.release(inner)


def _plain(build: Builder, x: int, into: int, weight: Tensor, bias: Tensor | None, add: bool = False) -> None:
    ints, vectors = [add, ACTIVATIONS.index("identity"), 0, 0], [build.vector(bias)]
    build.op("linear", reads=[x], writes=[into], ints=ints, matrices=[build.matrix(weight)], vectors=vectors)


def _in_turn(build: Builder, x: int, into: int, layers: nn.Sequential, add: bool) -> None:
    *before, last = layers
    for layer in before:
        inner = build.register(outputs(layer))
        product(build, x, inner, layer)
        x = inner
    product(build, x, into, last, add)
    build.release(x)
