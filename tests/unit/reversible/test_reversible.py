"""A reversible stack has the gradients of plain autograd, and keeps nothing that grows with depth."""

from functools import partial

import pytest
import torch
from stacks import build, gradients, halves, inputs, objective, plain
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from formers import MLP, Attention, Block, Decoder, Untied, stack
from formers.reversible import Reversible, rebuild
from formers.reversible.half import Half

CLOSE = {"atol": 1e-9, "rtol": 1e-9}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert [g is None for g in found] == [g is None for g in expected]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("merge", ["concatenate", "mean"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_plain_autograd(merge: str, dropout: float) -> None:
    """With chunks, parts that share rows, dropout, choices, losses, cross-attention and an odd number of halves."""
    layer, (x, call) = build(times=3, dropout=dropout, merge=merge), inputs()
    chance = torch.get_rng_state()
    out = layer(x, call)
    torch.manual_seed(99)  # whatever is drawn between the two passes
    before = torch.get_rng_state()
    found = gradients(out, layer, x, call)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(chance)
    expected = plain(layer, x, call)
    torch.testing.assert_close(out.y, expected.y, **CLOSE)
    torch.testing.assert_close(out.losses, expected.losses, **CLOSE)
    expected_gradients = gradients(expected, layer, x, call)
    same(found, expected_gradients)
    assert sum(g is None for g in found) == 3  # the parameter of each block that nothing uses


def test_without_the_same_dropout_again_gradients_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, (x, call) = build(dropout=0.5), inputs()
    chance = torch.get_rng_state()
    expected = gradients(plain(layer, x, call), layer, x, call)

    def error() -> float:
        torch.set_rng_state(chance)
        found = gradients(layer(x, call), layer, x, call)
        return float((found[0] - expected[0]).abs().max() / expected[0].abs().max())

    assert error() < 1e-9
    monkeypatch.setattr(rebuild, "draw_again", lambda device, states: None)
    assert error() > 0.1


def test_choices_are_obeyed_and_not_made_again() -> None:
    """Choices handed in stand for those of the first pass, in both directions."""
    layer, (x, call) = build(dropout=0.0), inputs()
    chosen = layer(x, call).choices
    other = torch.randn_like(x, requires_grad=True)
    layer.eval()
    out = layer(other, call, choices=chosen)
    torch.testing.assert_close(out.choices, chosen)
    assert not torch.equal(layer(other, call).choices[0][1], chosen[0][1])
    x1 = x2 = other
    flat = [chose for block in chosen for chose in block]
    for (norm, sublayer, _), chose in zip(halves(layer), flat, strict=True):
        x1, x2 = x2, x1 + sublayer(norm(x2), call, None, chose).y
    expected = torch.cat([x1, x2], -1)
    torch.testing.assert_close(out.y, expected, **CLOSE)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((out.y * weight).sum(), other),
        torch.autograd.grad((expected * weight).sum(), other),
        **CLOSE,
    )


def test_inside_a_checkpoint() -> None:
    layer, (x, call) = build(), inputs()
    chance = torch.get_rng_state()
    found = gradients(checkpoint(layer, x, call, use_reentrant=False), layer, x, call)
    torch.set_rng_state(chance)
    same(found, gradients(plain(layer, x, call), layer, x, call))


def test_parameters_that_do_not_learn_get_no_gradient() -> None:
    layer, (x, call) = build(dropout=0.0), inputs()
    frozen = [*layer.blocks[0].parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    objective(layer(x, call)).backward()
    found = [parameter.grad for parameter in layer.blocks[1].parameters()]
    assert all(parameter.grad is None for parameter in frozen)
    again = list(layer.blocks[1].parameters())
    expected = torch.autograd.grad(objective(plain(layer, x, call)), again, allow_unused=True)
    same(found, list(expected))


def test_what_autograd_keeps_does_not_grow_with_depth() -> None:
    def kept(times: int) -> int:
        layer, (x, call) = build(times), inputs()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            layer(x, call)
        return sum(sizes)

    streams, hidden = 2 * 2 * 13 * 8, 2 * 5 * 8
    assert kept(1) == kept(5) == streams + hidden


def test_states_and_records_carry_no_gradient_and_losses_do() -> None:
    out = build()(*inputs())
    keys = out.state[0][0].k.view
    assert not keys.requires_grad and out.losses["size"].requires_grad
    assert len(out.records["load"]) == 2 and not out.records["load"][0].requires_grad
    assert len(out.state) == 2 and len(out.state[0]) == 5


def test_streams_are_fp32_under_autocast_and_it_is_met_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, (x, call) = build(dropout=0.2, shared=False).float(), inputs()
    x = x.detach().float().requires_grad_()
    call = type(call)(call.at, call.encoded._replace(hidden=call.encoded.hidden.detach().float().requires_grad_()))
    seen: list[tuple[torch.dtype, torch.dtype, bool]] = []
    add, take = Half.add, Half.take

    def noted(how, self, streams, *rest):
        seen.append((streams.to.dtype, torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype, how is take))
        return how(self, streams, *rest)

    monkeypatch.setattr(Half, "add", lambda self, *rest: noted(add, self, *rest))
    monkeypatch.setattr(Half, "take", lambda self, *rest: noted(take, self, *rest))
    chance = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, call)
    found = gradients(out, layer, x, call)
    torch.set_rng_state(chance)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # its cache sums gradients in bf16
        expected = plain(layer, x, call)
    assert set(seen) == {(torch.float32, torch.bfloat16, back) for back in (False, True)}
    assert out.y.dtype == torch.float32
    torch.testing.assert_close(out.y, expected.y)
    for one, other in zip(found, gradients(expected, layer, x, call), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_bf16_parameters_have_fp32_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = set()
    add = Half.add
    monkeypatch.setattr(
        Half, "add", lambda self, streams, given: dtypes.add(streams.to.dtype) or add(self, streams, given)
    )
    model = model_of(Block((Attention(2), MLP(12))), 2).bfloat16()
    model(torch.randint(11, (2, 9))).logits.float().sum().backward()
    assert dtypes == {torch.float32}
    assert all(parameter.grad.dtype == torch.bfloat16 for parameter in model.parameters())


def test_a_second_backward_pass_is_refused_and_not_wrong() -> None:
    layer, (x, call) = build(), inputs()
    loss = objective(layer(x, call))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_loss_alone_is_enough() -> None:
    layer, (x, call) = build(dropout=0.0), inputs()
    found = torch.autograd.grad(layer(x, call).losses["size"], x)
    torch.testing.assert_close(found, torch.autograd.grad(plain(layer, x, call).losses["size"], x), **CLOSE)


def test_the_gradient_handed_in_is_left_as_it_was() -> None:
    layer, (x, call) = build(merge="mean"), inputs()
    y = layer(x, call).y
    upstream = torch.randn_like(y)
    before = upstream.clone()
    y.backward(upstream)
    torch.testing.assert_close(upstream, before, rtol=0, atol=0)


def model_of(block: Block, times: int, merge: str = "concatenate") -> nn.Module:
    torch.manual_seed(0)
    spec = Decoder("reversible", 11, 8, (Reversible(stack(block, times=times), merge),), head=Untied())
    return spec.build(streaming=True)


@pytest.mark.parametrize("merge", ["concatenate", "mean"])
@pytest.mark.parametrize("at", [partial(torch.no_grad), partial(torch.enable_grad), partial(torch.inference_mode)])
def test_decoding_step_by_step_is_one_pass(merge: str, at: partial) -> None:
    model = model_of(Block((Attention(2), MLP(12, chunk=4))), 2, merge).double().eval()
    tokens, state, steps = torch.randint(11, (2, 9)), None, []
    with at():
        for t in range(9):
            out = model.step(tokens[:, t : t + 1], state)
            state = out.state
            steps.append(out.logits)
        torch.testing.assert_close(torch.cat(steps, 1), model(tokens).logits)
        torch.testing.assert_close(torch.cat(steps, 1), model(tokens, remember=False).logits)


def test_reformers_block_of_two_keeps_its_order() -> None:
    """Y1 = X1 + Attention(norm(X2)), Y2 = X2 + FeedForward(norm(Y1)), side by side in this order."""
    layer = model_of(Block((Attention(2), MLP(12))), 1).stack.blocks[0]
    x, call = inputs()
    x = x.float()
    (norm1, attention, _), (norm2, feedforward, _) = halves(layer)
    y1 = x + attention(norm1(x), call).y
    y2 = x + feedforward(norm2(y1), call).y
    torch.testing.assert_close(layer(x, call).y, torch.cat([y1, y2], -1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
def test_it_trains_through_torch_compile() -> None:
    model = model_of(Block((Attention(2), MLP(12, chunk=4))), 2)
    tokens = torch.randint(11, (2, 9))
    model(tokens).logits.logsumexp(-1).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    torch.compile(model, backend="eager")(tokens, remember=False).logits.logsumexp(-1).sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], expected)
