"""A mixture of experts routes, balances and drops as the paper says, and each way of running it gives the same."""

import math

import pytest
import torch
from torch import nn

from formers import GLU, MLP, Attention, Block, ConfigError, Decoder, Switch, Truncated, stack
from formers.call import Call
from formers.experts.seats import seat_alike
from formers.places import Places
from formers.spec import Site

DIM = 4


@pytest.fixture(autouse=True)
def exact() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def layer_of(expert: MLP | GLU = MLP(8), experts: int = 3, **given) -> nn.Module:
    """In training, its biases awake, and no jitter where none is asked for."""
    layer = Switch(expert, experts, **{"jitter": 0.0, "capacity": None} | given).build(Site(DIM))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer


def call_of(length: int, real: torch.Tensor | None = None, seed: int = 0) -> Call:
    return Call(Places.run(0, length) if real is None else Places((real.cumsum(1) - 1).clamp(min=0), real), seed=seed)


def alone(layer: nn.Module, x: torch.Tensor, expert: int) -> torch.Tensor:
    """One expert written out; x (M,)."""
    made = layer.experts

    def product(stacked: nn.Module, y: torch.Tensor) -> torch.Tensor:
        y = stacked.weight[expert] @ y
        return y if stacked.bias is None else y + stacked.bias[expert]

    units = product(made.up, x)
    units = made.activation(units) if made.gate is None else made.activation(product(made.gate, x)) * units
    return product(made.down, units)


@pytest.mark.parametrize("expert", [MLP(8), MLP(8, "relu", bias=False), GLU(6)], ids=repr)
def test_the_likeliest_expert_speaks_as_loudly_as_it_is_likely(expert: MLP | GLU) -> None:
    layer, x = layer_of(expert), torch.randn(2, 7, DIM)
    out = layer(x, call_of(7))
    p = (x @ layer.router.weight.T).softmax(-1)
    for b, t in torch.cartesian_prod(torch.arange(2), torch.arange(7)):
        best = int(p[b, t].argmax())
        torch.testing.assert_close(out.y[b, t], p[b, t, best] * alone(layer, x[b, t], best))
    share = torch.stack([(p.argmax(-1) == i).double().mean(1) for i in range(3)], -1)
    torch.testing.assert_close(out.losses["load_balance"], 0.01 * 3 * (share * p.mean(1)).sum(-1).mean())
    other = (out.choices + 1) % 3
    torch.testing.assert_close(layer(x, call_of(7), choices=other).choices, other)


def test_several_experts_share_a_token_by_their_chances() -> None:
    layer, x = layer_of(top_k=2), torch.randn(1, 6, DIM)
    p = (x @ layer.router.weight.T).softmax(-1)[0]
    for t, row in enumerate(layer(x, call_of(6)).y[0]):
        chances, best = p[t].topk(2)
        made = torch.stack([alone(layer, x[0, t], int(e)) for e in best])
        torch.testing.assert_close(row, (chances / chances.sum()) @ made)


def test_one_expert_with_room_is_the_dense_layer() -> None:
    layer, dense, x = layer_of(experts=1, capacity=1.0), MLP(8).build(Site(DIM)), torch.randn(2, 5, DIM)
    with torch.no_grad():
        for ours, theirs in ((layer.experts.up, dense.up), (layer.experts.down, dense.down)):
            theirs.weight.copy_(ours.weight[0])
            theirs.bias.copy_(ours.bias[0])
    torch.testing.assert_close(layer(x, call_of(5)).y, dense(x, call_of(5)).y)


def test_what_overflows_adds_nothing_in_the_order_of_tokens_and_padding_takes_no_seat() -> None:
    layer, x = layer_of(experts=4, capacity=1.0), torch.randn(1, 8, DIM)
    everyone = torch.zeros(1, 8, 1, dtype=torch.int64)
    out = layer(x, call_of(8), choices=everyone)
    assert out.y[:, :2].all()
    assert not out.y[:, 2:].any()
    assert out.records["dropped"][0] == 6
    assert out.records["load"][0].tolist() == [8, 0, 0, 0]
    real = torch.arange(13)[None] >= 5
    padded = torch.cat([torch.randn(1, 5, DIM), x], 1)
    again = layer(padded, call_of(13, real), choices=torch.zeros(1, 13, 1, dtype=torch.int64))
    torch.testing.assert_close(again.y[:, 5:], out.y)
    assert not again.y[:, :5].any()
    assert again.records["load"][0].tolist() == [8, 0, 0, 0]
    torch.testing.assert_close(again.losses, out.losses)


def test_a_full_expert_is_full_for_one_row_alone() -> None:
    layer, x = layer_of(experts=2, capacity=1.0), torch.randn(2, 6, DIM)
    chosen = torch.tensor([[0, 0, 0, 0, 0, 1], [0, 1, 0, 1, 0, 1]])[..., None]
    out = layer(x, call_of(6), choices=chosen)
    assert out.records["dropped"][0] == 2
    for row in range(2):
        lone = layer(x[row : row + 1], call_of(6), choices=chosen[row : row + 1])
        torch.testing.assert_close(out.y[row : row + 1], lone.y)


def test_a_second_choice_takes_no_seat_from_an_earlier_token() -> None:
    layer, x = layer_of(experts=3, top_k=2, capacity=0.75), torch.randn(1, 8, DIM)
    changed = torch.cat([x[:, :5], torch.randn(1, 3, DIM)], 1)
    torch.testing.assert_close(layer(x, call_of(8)).y[:, :5], layer(changed, call_of(8)).y[:, :5])


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("capacity", [None, 0.6, 1.25])
@pytest.mark.parametrize("padded", [False, True])
def test_equal_seats_give_what_close_ones_give(top_k: int, capacity: float | None, padded: bool) -> None:
    """Outputs, losses, records and gradients, where the experts know one way only, as on other machines."""
    layer = layer_of(experts=4, top_k=top_k, capacity=capacity)
    x, weights = torch.randn(3, 9, DIM, requires_grad=True), torch.randn(3, 9, DIM)
    real = torch.arange(9)[None] < torch.tensor([9, 0, 5])[:, None] if padded else None

    def found() -> list[torch.Tensor]:
        out = layer(x, call_of(9, real))
        loss = (out.y * weights).sum() + out.losses["load_balance"]
        return [out.y, loss, *out.records["load"], *out.records["dropped"], *torch.autograd.grad(loss, inputs)]

    inputs = [x, *layer.parameters()]
    close = found()
    layer.experts = Elsewhere(layer.experts)
    torch.testing.assert_close(found(), close)
    slow = seat_alike(torch.zeros(1, 4, 1, dtype=torch.int64), None, 2, 1.0)
    assert slow.choices.tolist() == [0, 1, 4, 4]


class Elsewhere(nn.Module):
    """What expert parallelism puts in the place of the experts: seats in, seats out."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.inner = [experts]

    def forward(self, seats: torch.Tensor) -> torch.Tensor:
        assert seats.dim() == 3
        return self.inner[0](seats)


def test_gradients_are_finite_differences() -> None:
    layer, x = layer_of(experts=3, top_k=2, capacity=0.8), torch.randn(2, 5, DIM, requires_grad=True)
    names = list(dict(layer.named_parameters()))

    def made(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (x, call_of(5)))
        return out.y.sum() + out.y.square().sum() + out.losses["load_balance"]

    assert torch.autograd.gradcheck(made, (x, *layer.parameters()))


def test_one_token_is_decoded_by_the_experts_that_it_chose_alone() -> None:
    layer, x = layer_of(experts=5, top_k=2).eval(), torch.randn(1, 1, DIM)
    asked: list[int] = []
    with torch.no_grad():
        expected = layer(x.expand(2, -1, -1), call_of(1)).y[:1]
        run = layer.experts.alone
        layer.experts.alone = lambda y, expert: (asked.append(expert), run(y, expert))[1]
        out = layer(x, call_of(1))
    torch.testing.assert_close(out.y, expected)
    assert asked == out.choices.flatten().tolist()
    assert len(set(asked)) == 2


def test_jitter_is_for_the_router_in_training_and_follows_the_seed() -> None:
    layer, x = layer_of(jitter=0.5), torch.randn(4, 16, DIM)
    seen = []
    layer.experts.up.register_forward_pre_hook(lambda *given: seen.append(given))
    first, again, other = (layer(x, call_of(16, seed=seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first.y, again.y, rtol=0, atol=0)
    assert (first.y - other.y).abs().max() > 1e-3
    noise = layer.router._noise(torch.empty(200, 200), call_of(1))
    assert 0.5 <= noise.min() < 0.501
    assert 1.499 < noise.max() <= 1.5
    torch.testing.assert_close(noise.std(), torch.tensor(0.5 / math.sqrt(3)), rtol=0.01, atol=0)
    kept = layer(x, call_of(16, seed=1), choices=torch.zeros(4, 16, 1, dtype=torch.int64))
    gates = torch.linalg.norm(kept.y, dim=-1) / torch.stack(
        [alone(layer, row, 0).norm() for row in x.flatten(0, 1)]
    ).view(4, 16)
    assert (gates - (x @ layer.router.weight.T).softmax(-1)[..., 0]).abs().max() > 1e-3
    assert (
        (gates > 0) & (gates <= 1)
    ).all()  # what the experts read has no noise: their outputs are the gates times theirs
    layer.eval()
    torch.testing.assert_close(layer(x, call_of(16, seed=1)).y, layer(x, call_of(16, seed=2)).y, rtol=0, atol=0)


def test_the_router_stays_in_fp32_under_autocast() -> None:
    layer, x = layer_of(MLP(8), capacity=0.8).float(), torch.randn(2, 9, DIM, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, call_of(9))
        routed = layer.router(x, call_of(9))
    assert out.y.dtype == torch.bfloat16
    assert routed.chances.dtype == torch.float32
    torch.testing.assert_close(routed.chances, (x @ layer.router.weight.T).softmax(-1))
    torch.testing.assert_close(out.y.float(), layer(x, call_of(9)).y, atol=0.05, rtol=0.05)
    out.y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in layer.parameters())


def test_experts_drop_their_units_at_their_own_rate() -> None:
    layer, x = layer_of(MLP(400, dropout=0.4)), torch.randn(1, 50, DIM)
    seen = []
    layer.experts.down.grouped = lambda rows, sizes: (seen.append(rows), torch.zeros(len(rows), DIM))[1]
    layer(x, call_of(50))
    assert 0.37 < (seen[0] == 0).double().mean() < 0.43
    layer.eval()(x, call_of(50))
    assert (seen[1] == 0).double().mean() < 0.01


def test_weights_begin_small_and_cut_off() -> None:
    block = Block((Attention(4), Switch(MLP(256), 8)))
    model = Decoder("begins", 50, 64, stack(block, times=2), init=Truncated()).build()
    layer = model.stack.blocks[0].sublayers[1]
    for weight in (
        layer.router.weight,
        layer.experts.up.weight,
        model.stack.blocks[0].sublayers[0].projection.q_proj.weight,
    ):
        std = math.sqrt(0.1 / 64)
        assert weight.abs().max() <= 2 * std
        torch.testing.assert_close(weight.std(), torch.tensor(0.88 * std), rtol=0.05, atol=0)  # cut at two deviations
    assert not layer.experts.up.bias.any()


def test_losses_of_layers_add_up_and_1_is_their_least() -> None:
    block = Block((Attention(2), Switch(MLP(8), 4, balance=1.0)))
    model = Decoder("sum", 11, 8, stack(block, times=2)).build()
    out = model(torch.randint(11, (4, 10)))
    assert set(out.losses) == {"load_balance"}
    assert len(out.records["load"]) == len(out.records["dropped"]) == 2
    assert out.losses["load_balance"] >= 2 * 0.99
    out = model.eval()(torch.randint(11, (4, 10)))
    assert not out.losses
    assert not out.records
    assert len(model(torch.randint(11, (4, 10)), remember=False).records["load"]) == 2


BAD = {
    "a token cannot meet 5 of 4 experts": {"top_k": 5},
    "a token cannot meet 0 of 4 experts": {"top_k": 0},
    "with capacity=0 no expert has a seat": {"capacity": 0.0},
    "with eval_capacity=-1 no expert has a seat": {"eval_capacity": -1.0},
    "there is none to go to": {"experts": 0},
    "jitter multiplies by": {"jitter": 1.0},
    "reward crowding": {"balance": -0.1},
    "must be positive": {"scale": 0.0},
    "all of their tokens at once": {"expert": MLP(8, chunk=3)},
}


@pytest.mark.parametrize("told", BAD)
def test_what_cannot_work_is_told_before_it_is_built(told: str) -> None:
    layer = Switch(**{"expert": MLP(8), "experts": 4} | BAD[told])
    with pytest.raises(ConfigError, match=told):
        Decoder("bad", 11, 8, (Block((Attention(2), layer)),)).build()


def test_exact_streaming_is_refused_with_a_limit() -> None:
    def decoder(**given) -> Decoder:
        return Decoder("stream", 11, 8, (Block((Attention(2), Switch(MLP(8), 4, **given))),))

    with pytest.raises(ConfigError, match="an expert is full after so many tokens"):
        decoder(eval_capacity=2.0).build(streaming=True)
    decoder(eval_capacity=None).build(streaming=True)
