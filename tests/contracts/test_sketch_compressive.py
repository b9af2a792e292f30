"""Compressive memory equals a plain loop; its losses reach the compression alone; its state is a value."""

import pytest
import torch
from sketch_compressive import SketchCompress

from formers import MLP, Attention, Block, ConfigError, Decoder, Rotary, stack
from formers.attention.oracle import attend_dense
from formers.call import Call
from formers.places import Places
from formers.spec import Site
from formers.state import detach


def attention(loss: str = "attention") -> Attention:
    return Attention(2, position=Rotary(), memory=SketchCompress(4, 5, segment=4, loss=loss))


def decoder(loss: str = "attention") -> Decoder:
    return Decoder("compressive", 11, 8, stack(Block((attention(loss), MLP(8))), times=2))


def test_equals_a_plain_loop_over_segments() -> None:
    layer, x = attention().build(Site(8, causal=True)), torch.randn(2, 24, 8)
    state, memory, compressed = None, x[:, :0], x[:, :0]
    for start in range(0, 24, 4):
        segment = x[:, start : start + 4]
        out = layer(segment, Call(Places.run(start, 4)), state)
        everything = torch.cat([compressed, memory, segment], 1)
        s = everything.shape[1]
        q = layer.position.turn(layer.projection.queries(segment), Places.run(s - 4, 4), Call(None).memo)
        k, v = layer.projection.keys_values(everything)
        k = layer.position.turn(k, Places.run(0, s), Call(None).memo)
        visible = torch.ones(4, s, dtype=torch.bool).tril(s - 4)
        torch.testing.assert_close(out.y, layer.projection.output(attend_dense(q, k, v, visible)))
        if start:  # the first segment fills the memory, each later one drives its elder out
            compressed = torch.cat([compressed, layer.memory.compress(memory)], 1)[:, -5:]
        memory, state = segment, out.state
    assert compressed.shape[1] == 5


@pytest.mark.parametrize("loss", ["attention", "reconstruction"])
def test_the_loss_trains_the_compression_alone(loss: str) -> None:
    model, tokens = decoder(loss).build(), torch.randint(11, (2, 12))
    first = model(tokens[:, :4])
    second = model(tokens[:, 4:8], first.state)
    assert not first.losses
    second.losses["compression"].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    rule = {"squeeze"} | ({"unsqueeze"} if loss == "reconstruction" else set())
    assert {name.split(".")[-2] for name in trained} == rule
    assert len(trained) == 2 * 2 * len(rule)  # weight and bias, in both layers

    def squeeze_learns(state: object) -> bool:
        out = model(tokens[:, 8:], state).logits.sum()
        weight = model.stack.blocks[0].sublayers[0].memory.squeeze.weight
        grad = torch.autograd.grad(out, weight, allow_unused=True)[0]
        return grad is not None and bool(grad.any())

    third = model(tokens[:, 4:8], detach(first.state)).state
    assert squeeze_learns(third) and not squeeze_learns(
        detach(third)
    )  # the model's loss only where asked to reach back


def test_state_is_a_value_and_steps_equal_segments() -> None:
    model, tokens = decoder().build(), torch.randint(11, (2, 16))
    state = None
    for start in (0, 4, 8):
        state = model(tokens[:, start : start + 4], state).state
    whole = model(tokens[:, 12:], state).logits
    steps, walk = [], state
    for t in range(12, 16):
        out = model.step(tokens[:, t : t + 1], walk)
        walk = out.state
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    model(torch.randint(11, (2, 4)), state)
    torch.testing.assert_close(model(tokens[:, 12:], state).logits, whole, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="depends on where segments end"):
        decoder().build(streaming=True)
