"""Multiplicative, modular and low-rank layers against their formulas."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from formers import MLP, Attention, Block, ConfigError, Decoder, Normal, Xavier, stack
from formers.attention import MultConv
from formers.sparse import LowRankLinear, ModularLinear, MultiplicativeLinear

# Tokens: fewer than a module has numbers; enough for all modules at once; enough for some of them.
FEW, MANY, PIECES = (2,), (3, 5), (2, 4)


def layer(inputs: int = 6, outputs: int = 12, modules: int = 3, seed: int = 0) -> MultiplicativeLinear:
    torch.manual_seed(seed)
    built = MultiplicativeLinear(inputs, outputs, modules).double()
    nn.init.normal_(built.bias)
    return built


def plain(built: MultiplicativeLinear, x: Tensor) -> Tensor:
    y = torch.einsum("...i,si,im->...sm", x, built.gate, built.mix)
    return y.flatten(-2) + built.bias


@pytest.mark.parametrize("shape", [FEW, MANY, PIECES, (1, 4), (0, 3)], ids=str)
def test_it_is_the_formula(shape: tuple[int, ...]) -> None:
    built, x = layer(), torch.randn(*shape, 6, dtype=torch.float64)
    torch.testing.assert_close(built(x), plain(built, x))


@pytest.mark.parametrize("shape", [FEW, MANY, PIECES], ids=str)
def test_gradients_are_those_of_the_formula_and_of_finite_differences(shape: tuple[int, ...]) -> None:
    built, x = layer(), torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    leaves = [x, *built.parameters()]
    weight = torch.randn(*shape, 12, dtype=torch.float64)
    ours = torch.autograd.grad((built(x) * weight).sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad((plain(built, x) * weight).sum(), leaves))
    assert torch.autograd.gradcheck(lambda x, *_: built(x), leaves)


@pytest.mark.parametrize("frozen", ["x", "parameters"])
def test_only_gradients_that_are_asked_for_are_made(frozen: str) -> None:
    built, x = layer(), torch.randn(9, 6, dtype=torch.float64, requires_grad=frozen != "x")
    built.requires_grad_(frozen != "parameters")
    leaves = [leaf for leaf in (x, *built.parameters()) if leaf.requires_grad]
    ours = torch.autograd.grad(built(x).square().sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad(plain(built, x).square().sum(), leaves))


def test_it_can_be_any_permutation() -> None:
    built = layer(24, 24, 4)
    order = torch.randperm(24)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        built.gate[torch.arange(24) // 6, order] = 1
        built.mix[order, torch.arange(24) % 6] = 1
        for rows in (1, 50):
            x = torch.randn(rows, 24, dtype=torch.float64)
            torch.testing.assert_close(built(x), x[:, order], rtol=0, atol=0)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor had that was made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("tokens", [40, 160, 1000])
def test_nothing_larger_than_input_or_output_is_made_of_many_tokens(tokens: int) -> None:
    built, x = layer(64, 128, 4), torch.randn(tokens, 64, dtype=torch.float64, requires_grad=True)
    saved: list[int] = []
    counted = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t)
    with Largest() as made, counted:
        built(x).square().sum().backward()
    assert made.numbers == tokens * 128  # the output, and its gradient
    assert sum(saved) <= 64 * tokens + 128 * tokens + sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("kind", [MultiplicativeLinear, LowRankLinear])
def test_some_rows_and_columns_are_parts_of_the_whole(kind: Any) -> None:
    built = kind(8, 12, 4).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter))
        torch.testing.assert_close(built.rows(x, slice(3, 9)), built(x)[:, 3:9])
        halves = [built.columns(x[:, part], part) for part in (slice(0, 2), slice(2, 8))]
        torch.testing.assert_close(halves[0] + halves[1], built(x))


@pytest.mark.parametrize("rows", [3, 300])
def test_autocast_lowers_the_products_and_not_the_gradients_of_parameters(rows: int) -> None:
    torch.manual_seed(0)
    built, x = MultiplicativeLinear(32, 64, 4), torch.randn(rows, 32, requires_grad=True)
    exact = built(x)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = built(x)
    assert lowered.dtype == torch.bfloat16
    torch.testing.assert_close(lowered.float(), exact, rtol=0.05, atol=0.05)
    wanted = torch.autograd.grad(exact.sum(), [x, *built.parameters()])
    found = torch.autograd.grad(lowered.float().sum(), [x, *built.parameters()])
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def variance(built: nn.Module, inputs: int) -> float:
    return float(built(torch.randn(4000, inputs)).detach().var())


@pytest.mark.parametrize(("inputs", "outputs", "modules"), [(256, 256, 8), (256, 1024, 4), (512, 128, 16)])
def test_it_begins_as_strong_as_a_dense_layer_or_as_published(inputs: int, outputs: int, modules: int) -> None:
    torch.manual_seed(0)
    glorot = 2 * inputs / (inputs + outputs)
    assert variance(MultiplicativeLinear(inputs, outputs, modules), inputs) == pytest.approx(glorot, rel=0.2)
    assert variance(LowRankLinear(inputs, outputs, 64), inputs) == pytest.approx(glorot, rel=0.2)
    built = MultiplicativeLinear(inputs, outputs, modules, init="published")
    assert float(built.gate.detach().std()) == pytest.approx(0.5, rel=0.1)
    assert float(built.mix.detach().var()) == pytest.approx(2 / (inputs + outputs // modules), rel=0.1)
    assert float(built.mix.detach().abs().max()) == pytest.approx((6 / (inputs + outputs // modules)) ** 0.5, rel=0.01)
    assert 5e-7 < float(built.bias.detach().std()) < 2e-6


@pytest.mark.parametrize("init", [Normal(), Normal(0.5, depth_scaled=True), Xavier()], ids=repr)
def test_the_initialisation_of_a_model_leaves_it_alone(init: Any) -> None:
    block = Block((Attention(4, projection=MultConv(output="mult")), MLP(8)))
    torch.manual_seed(0)
    model = Decoder("x", 7, 128, stack(block, times=1), init=init).build()
    attention = model.stack.blocks[0].sublayers[0].projection
    for mult in (attention.mult, attention.out_mult):
        assert float(mult.gate.detach().std()) == pytest.approx(0.5, rel=0.1)
        assert float(mult.mix.detach().std()) == pytest.approx(2 * (2 / 256) ** 0.5, rel=0.1)
        assert not mult.bias.any()
    for conv in (attention.q_conv, attention.k_conv, attention.v_conv):
        area = conv.length * conv.width
        assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * area)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("width", [1, 3])
def test_modules_see_their_neighbours_in_a_circle(width: int) -> None:
    torch.manual_seed(0)
    built, x = ModularLinear(12, 8, 4, width).double(), torch.randn(2, 5, 12, dtype=torch.float64)
    nn.init.normal_(built.bias)
    row, made = x.unflatten(-1, (4, 3)), []
    for s in range(4):
        seen = torch.cat([row[..., (s + n - width // 2) % 4, :] for n in range(width)], -1)
        made.append(seen @ built.weight[s])
    torch.testing.assert_close(built(x), torch.cat(made, -1) + built.bias)
    assert torch.autograd.gradcheck(lambda x: built(x), x[:, :1].requires_grad_())


def test_low_rank_is_two_products() -> None:
    torch.manual_seed(0)
    built, x = LowRankLinear(6, 10, 3).double(), torch.randn(4, 6, dtype=torch.float64)
    for bias in (built.down_bias, built.up_bias):
        nn.init.normal_(bias)
    wanted = (x @ built.down.T + built.down_bias) @ built.up.T + built.up_bias
    torch.testing.assert_close(built(x), wanted)


def test_what_does_not_split_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="10 numbers do not split into 4 modules: 5 modules"):
        MultiplicativeLinear(8, 10, 4)
    with pytest.raises(ConfigError, match="10 numbers do not split into 0 modules: 1 modules"):
        MultiplicativeLinear(8, 10, 0)
    with pytest.raises(ConfigError, match="of 4 modules in a circle, 2 have no middle one: width=1"):
        ModularLinear(8, 8, 4, 2)
    with pytest.raises(ConfigError, match="nothing passes a middle of 0 numbers: rank=64"):
        LowRankLinear(8, 8, 0)


def test_products_are_counted_for_one_token() -> None:
    assert MultiplicativeLinear(8, 12, 4).products == 8 * 12
    assert LowRankLinear(8, 12, 3).products == 8 * 3 + 3 * 12
    assert ModularLinear(8, 12, 4, 3).products == 4 * 6 * 3
