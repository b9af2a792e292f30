"""Products with one matrix, in fp32: ours, by tiles where there are any, beside PyTorch's."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.products import Matrix
from formers.report.rows import Row, ratio_at_least

SHAPES = ((4096, 512, 512), (16_384, 512, 512), (4096, 512, 2048), (2048, 256, 8192))
TINY = ((8, 4, 6),)
PYTORCH = Rival("torch.nn.Linear, in fp32")
SUITE, UNIT = "products", "ms"


@BENCHES.case(
    SUITE,
    "a matrix, forward and both gradients, as exact as fp32",
    unit=UNIT,
    better="lower",
    rival=PYTORCH,
    goal=ratio_at_least(1),
)
def exact(trial: Trial) -> Iterator[Row]:
    """Tokens by inputs by outputs. `highest` of torch.set_float32_matmul_precision."""
    yield from compared(trial, "highest")


@BENCHES.case(
    SUITE,
    'the same with products as exact as two numbers in bf16 for each ("high")',
    unit=UNIT,
    better="lower",
    rival=PYTORCH,
)
def rougher(trial: Trial) -> Iterator[Row]:
    """PyTorch itself knows no such products on a CPU, and makes whole ones."""
    yield from compared(trial, "high")


def compared(trial: Trial, precision: str) -> Iterator[Row]:
    """Time, and how far outputs are from the exact ones, in the mean, over the mean of these."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for shape in TINY if trial.quick else SHAPES:
            yield from one(trial, *shape)
    finally:
        torch.set_float32_matmul_precision(before)


def one(trial: Trial, tokens: int, inputs: int, outputs: int) -> Iterator[Row]:
    name = f"{tokens:,} x {inputs:,} x {outputs:,}"
    x, grad = torch.randn(tokens, inputs), torch.randn(tokens, outputs)
    ours, theirs = Matrix(inputs, outputs, bias=False), nn.Linear(inputs, outputs, bias=False)
    theirs.load_state_dict(ours.state_dict())
    duel = trial.duel(turn(ours, x, grad), lambda: turn(theirs, x, grad), rounds=15)
    yield trial.row(name, *duel.milliseconds())
    wrong = [1e9 * error(layer, x) for layer in (ours, theirs)]
    yield trial.row(f"{name}: error", *wrong, unit="1e-9", goal=None)


def turn(layer: nn.Linear, x: Tensor, grad: Tensor) -> Callable[[], None]:
    """The three products, whose results are dropped, so that nothing else is timed."""
    x = x.clone().requires_grad_()

    def run() -> None:
        torch.autograd.grad(layer(x), [x, layer.weight], grad)

    return run


def error(layer: nn.Linear, x: Tensor) -> float:
    some = x[:256]  # few rows would be multiplied by PyTorch, so all are, and some are looked at
    with torch.no_grad():
        exact = some.double() @ layer.weight.double().mT
        return float((layer(x)[:256] - exact).square().mean().sqrt() / exact.square().mean().sqrt())
