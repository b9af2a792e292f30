"""The feedback memory: its formula in a plain loop, its gradient by hand, its state, padding, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import MLP, ConfigError, Decoder, Encoder, Feedback, make
from formers.call import Call
from formers.feedforward import ACTIVATIONS, GLU
from formers.norm import LayerNorm, RMSNorm
from formers.places import Places
from formers.residual import PostNorm, PreNorm, Residual
from formers.spec import Site
from formers.spec.check import check
from formers.state import detach, tensors

DIM, HEADS, REACH, LENGTH = 12, 3, 4, 11
RESIDUALS = {"pre": PreNorm(), "post": PostNorm(), "pre, no shift": PreNorm(LayerNorm(bias=False))}


def feedback(residual: Residual, **fields: Any) -> Any:
    torch.manual_seed(0)
    spec = Feedback(
        **{"depth": 3, "heads": HEADS, "feed_forward": MLP(10), "reach": REACH, "residual": residual} | fields
    )
    layer = spec.build(Site(DIM, causal=True)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.eval()


def inputs(batch: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(
    layer: nn.Module, x: Tensor, state: Any = None, real: Tensor | None = None, start: int = 0
) -> tuple[Tensor, Any]:
    at = Places.run(start, x.shape[1]) if real is None else Places((real.cumsum(1) - 1).clamp(min=0), real)
    out = layer(x, Call(at), state)
    return out.y, out.state


def by_the_paper(layer: Any, x: Tensor, before: bool) -> Tensor:
    """One row (T, M), token by token, head by head and memory by memory."""
    memories: list[Tensor] = []
    outputs, width, w = [], DIM // HEADS, layer.shares.softmax(0)
    for t, stream in enumerate(x):
        streams = [stream]
        met = range(max(0, t - REACH), t)
        for part in layer.layers:
            first, second = part.residual.norms
            h = streams[-1]
            q = part.q_proj(first(h) if before else h).view(HEADS, width)
            heads = torch.zeros(HEADS, width, dtype=x.dtype)
            for head in range(HEADS if met else 0):
                own = slice(head * width, (head + 1) * width)
                keys = [
                    layer.k_proj(layer.norm(memories[s]))[own] + layer.distances.weight[REACH - (t - s)] for s in met
                ]
                weights = torch.stack([q[head] @ key / math.sqrt(width) for key in keys]).softmax(0)
                for weight, s in zip(weights, met, strict=True):
                    heads[head] = heads[head] + weight * layer.v_proj(layer.norm(memories[s]))[own]
            attended = part.out_proj(heads.flatten())
            middle = h + attended if before else first(h + attended)
            fed = part.feed_forward.down(F.gelu(part.feed_forward.up(second(middle) if before else middle)))
            streams.append(middle + fed if before else second(middle + fed))
        memories.append(sum(share * stream for share, stream in zip(w, streams, strict=True)))
        outputs.append(streams[-1])
    return torch.stack(outputs)


@pytest.mark.parametrize("name", RESIDUALS)
@pytest.mark.parametrize("gradients", [True, False])
def test_it_is_the_papers_loop(name: str, gradients: bool) -> None:
    layer, x = feedback(RESIDUALS[name]), inputs()
    with torch.set_grad_enabled(gradients):
        wanted = torch.stack([by_the_paper(layer, row, name != "post") for row in x])
        torch.testing.assert_close(run(layer, x)[0], wanted)


@pytest.mark.parametrize(
    ("name", "activation", "bias"),
    [*((name, "gelu", True) for name in RESIDUALS), *(("pre", name, False) for name in ACTIVATIONS)],
)
def test_the_gradient_by_hand_is_autograds(name: str, activation: Any, bias: bool) -> None:
    """Of every parameter and the input, through two calls, the second with less behind it than the first has left."""
    layer, x = feedback(RESIDUALS[name], feed_forward=MLP(10, activation, bias)), inputs().requires_grad_()
    weights = torch.randn(2, LENGTH, DIM, dtype=torch.float64)

    def gradients() -> tuple[Tensor, ...]:
        first, state = run(layer, x[:, :3])
        rest, state = run(layer, x[:, 3:], state, start=3)
        kept = sum((tensor * tensor).sum() for tensor in tensors(state))
        loss = (torch.cat([first, rest], 1) * weights).sum() + kept
        return torch.autograd.grad(loss, [x, *layer.parameters()])

    assert layer.by_hand
    ours = gradients()
    layer.by_hand = False
    torch.testing.assert_close(ours, gradients())


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_the_gradient_of_ragged_rows_by_hand_is_that_of_finite_differences(rate: float) -> None:
    layer, x = feedback(PreNorm(dropout=rate)).train(), inputs(3, 6)
    real = torch.tensor([[False, True, True, False, True, True], [True] * 6, [False] * 5 + [True]])
    parameters = [layer.layers[1].q_proj.weight, layer.v_proj.weight, layer.distances.weight, layer.shares]

    def loss(x: Tensor, *changed: Tensor) -> Tensor:
        torch.manual_seed(5)
        first, state = run(layer, x[:, :4], None, real[:, :4])
        second, _ = run(layer, x[:, 4:], state, real[:, 4:])
        return torch.cat([first, second], 1)[real]

    assert layer.by_hand
    assert torch.autograd.gradcheck(loss, [x.requires_grad_(), *parameters], fast_mode=True)


def test_dropout_leaves_out_and_makes_up_for_it() -> None:
    layer, x = feedback(PreNorm(dropout=0.5)), inputs()
    plain, _ = run(layer, x)
    layer.train()
    dropped = torch.stack([run(layer, x)[0] for _ in range(3)])
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(run(layer.eval(), x)[0], plain)


def test_the_first_token_is_given_zeros_by_attention() -> None:
    layer, x = feedback(PreNorm()), inputs(1, 1)
    for part in layer.layers:
        nn.init.zeros_(part.feed_forward.down.weight)
        nn.init.zeros_(part.feed_forward.down.bias)
    torch.testing.assert_close(run(layer, x)[0], x)


def test_a_token_meets_so_many_memories_and_nothing_earlier() -> None:
    """What came earlier may reach it through memories of memories, so those are made of what comes in alone."""
    layer, x = feedback(PreNorm()), inputs(1)
    with torch.no_grad():
        layer.shares.copy_(torch.tensor([200.0, 0, 0, 0]))
    other = x.clone()
    other[:, 2] += 1
    changed = (run(layer, x)[0] != run(layer, other)[0]).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [2, *range(3, 3 + REACH)]


def test_every_layer_reaches_the_first_one_of_the_next_token() -> None:
    layer, x = feedback(PreNorm(), depth=2), inputs(1, 2).requires_grad_()
    streams: list[Tensor] = []
    layer.by_hand = False
    for part in layer.layers:
        part.register_forward_hook(lambda module, given, made: streams.append(made))
    run(layer, x)
    first_top, second_bottom = streams[1], streams[2]
    assert torch.autograd.grad(second_bottom.sum(), first_top)[0].any()


def test_the_state_does_not_grow_beyond_its_reach() -> None:
    layer, x = feedback(PreNorm()), inputs(2, 40)
    with torch.no_grad():
        _, state = run(layer, x[:, :7])
        for t in range(7, 40):
            _, state = run(layer, x[:, t : t + 1], state, start=t)
    assert {tensor.shape[2] for tensor in tensors(state)} == {REACH}


def test_padding_takes_up_no_place_in_the_state() -> None:
    layer, x = feedback(PostNorm()), inputs(3, 9)
    real = torch.tensor([[False] * 7 + [True] * 2, [True] * 9, [True] * 2 + [False] * 4 + [True] * 3])
    with torch.no_grad():
        y, state = run(layer, x, None, real)
        for row in range(3):
            alone, kept = run(layer, x[row : row + 1, real[row]])
            torch.testing.assert_close(y[row, real[row]], alone[0])
            count = min(REACH, int(real[row].sum()))
            torch.testing.assert_close(state.k.view[row, :, -count:], kept.k.view[0])
            assert state.real is not None
            assert state.real[row].sum() == count
        _, state = run(layer, x[:, :5], state, start=9)
    assert state.real is None  # every row has seen enough by now


def test_rows_of_padding_alone_leave_the_state_as_it_is() -> None:
    layer, x = feedback(PreNorm()), inputs()
    with torch.no_grad():
        _, state = run(layer, x)
        y, after = run(layer, x[:, :3], state, torch.zeros(2, 3, dtype=torch.bool))
    assert not y.any()
    torch.testing.assert_close(after.k.view, state.k.view)


@pytest.mark.parametrize("parts", [{"feed_forward": GLU(10)}, {"residual": PreNorm(RMSNorm())}])
def test_other_parts_run_as_modules(parts: dict[str, Any]) -> None:
    layer, x = feedback(**{"residual": PreNorm()} | parts), inputs(1).requires_grad_()
    assert not layer.by_hand
    whole, _ = run(layer, x)
    first, state = run(layer, x[:, :5])
    torch.testing.assert_close(torch.cat([first, run(layer, x[:, 5:], state, start=5)[0]], 1), whole)
    assert torch.autograd.grad(whole[:, -1].sum(), x)[0].any()


def test_gradients_stop_at_a_detached_state() -> None:
    layer, x = feedback(PreNorm()), inputs(1).requires_grad_()
    _, state = run(layer, x[:, :5])
    y, _ = run(layer, x[:, 5:], detach(state), start=5)
    assert not torch.autograd.grad(y.sum(), x)[0][:, :5].any()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 0}, "0 layers make nothing"),
        ({"reach": 0}, "look 0 tokens back"),
        ({"heads": 5}, "dim 12 does not split into 5 heads"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, int], words: str) -> None:
    spec = Feedback(**{"depth": 1, "heads": 3, "feed_forward": MLP(4)} | fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        check(spec, Site(DIM, causal=True), "feedback")


def test_an_encoder_refuses_it() -> None:
    with pytest.raises(ConfigError, match="memories are of tokens that came before"):
        Encoder("encoder", 7, DIM, (Feedback(1, 3, MLP(4)),)).build()


def test_the_member_is_one_depth_of_feedback() -> None:
    spec = make("feedback_transformer", dim=32, depth=3, heads=4, hidden=48, reach=8)
    assert isinstance(spec, Decoder)
    (layers,) = spec.blocks
    assert (layers.depth, layers.reach, type(layers.residual)) == (3, 8, PreNorm)
    assert layers.carries
