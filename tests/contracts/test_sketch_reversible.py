"""The gradients of a reversible stack are those of plain autograd: with dropout, and where a hash would flip."""

from typing import Any

import pytest
import torch
from sketch_lsh import SketchLSH, SketchLSHRule, attention
from sketch_reversible import Run, SketchBranch, SketchReversible, SketchReversibleLayer
from torch import Tensor, nn

from formers import MLP, Block, CrossAttention, Decoder
from formers.call import Call, Encoded, Layer, Out, add_losses
from formers.places import Places
from formers.spec import Site


class SketchSquare(Layer):
    """Passes its input on, and charges for its size."""

    def build(self, site: Site) -> nn.Module:
        return SketchSquareLayer()


class SketchSquareLayer(nn.Module):
    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        return Out(x, losses={"size": x.pow(2).mean(), "height": x.abs().mean() * 3})


def build(pairs: int = 2, dropout: float = 0.0) -> SketchReversibleLayer:
    residual = SketchBranch(dropout=dropout)
    reads = Block((attention(SketchLSH(4, 6), dropout),), residual), Block((MLP(16), SketchSquare()), residual)
    layer = SketchReversible((*reads * pairs, Block((CrossAttention(2),), residual))).build(
        Site(8, causal=True, encoder=True)
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def inputs(length: int = 13, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Call]:
    x, hidden = (torch.randn(2, n, 8, dtype=dtype, requires_grad=True) for n in (length, 5))
    return x, Call(Places.run(0, length), Encoded(hidden, Places.run(0, 5)))


def plain(layer: SketchReversibleLayer, x: Tensor, call: Call, choices: Any) -> Out:
    """The same stack by ordinary autograd."""
    x1, x2, outs = x, x, []
    for branch, chosen in zip(layer.branches, choices, strict=True):
        outs.append(branch(x2, call, None, chosen))
        x1, x2 = x2, x1 + outs[-1].y
    return Out((x1 + x2) / 2, losses=add_losses(*(out.losses for out in outs)))


def gradients(out: Out, layer: nn.Module, x: Tensor, call: Call) -> list[Tensor]:
    weight = torch.linspace(-1, 1, out.y.numel(), dtype=x.dtype).view_as(out.y)
    loss = (out.y * weight).sum() + out.losses["size"] + 2 * out.losses["height"]
    return list(torch.autograd.grad(loss, [x, call.encoded.hidden, *layer.parameters()]))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_equal_those_of_plain_autograd(dropout: float) -> None:
    layer, (x, call) = build(dropout=dropout), inputs()
    chance = torch.get_rng_state()
    out = layer(x, call)
    torch.manual_seed(99)  # whatever is drawn between the two passes
    found = gradients(out, layer, x, call)
    torch.set_rng_state(chance)
    expected = plain(layer, x, call, out.choices)
    torch.testing.assert_close(out.y, expected.y)
    torch.testing.assert_close(found, gradients(expected, layer, x, call), atol=1e-9, rtol=1e-9)


def test_what_autograd_keeps_does_not_grow_with_depth() -> None:
    def kept(pairs: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            build(pairs)(*inputs())
        return sum(sizes)

    assert kept(1) == kept(5) > 0


def test_a_hash_that_flips_is_a_wrong_gradient_unless_choices_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32, as in life: what is rebuilt is off by rounding, and buckets that all but tie fall the other way."""

    def edges(self: SketchLSHRule, call: Call) -> Tensor:
        turned = torch.randn(2, 1, 4, 1, generator=call.chance(self.site.path)).expand(-1, 2, -1, 3)
        return turned * (1 + 1e-7 * torch.arange(3))

    def decide_again(self: Run, i: int, x: Tensor, hidden: Tensor) -> Out:
        with torch.enable_grad():
            call = Call(self.call.at, Encoded(hidden, self.call.encoded.places))
            out = self.branches[i](x, call)
        flipped.append(self.outs[i].choices is not None and not torch.equal(self.outs[i].choices[0], out.choices[0]))
        return out

    monkeypatch.setattr(SketchLSHRule, "rotations", edges)
    layer, (x, call), flipped = build(pairs=3).float(), inputs(64, torch.float32), []
    expected = gradients(plain(layer, x, call, layer(x, call).choices), layer, x, call)
    largest = max(float(g.abs().max()) for g in expected)

    def error() -> float:
        found = gradients(layer(x, call), layer, x, call)
        return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest

    assert error() < 1e-4
    monkeypatch.setattr(Run, "again", decide_again)
    assert error() > 1e-2
    assert any(flipped)


def test_stands_in_a_decoder() -> None:
    halves = (Block((attention(None),), SketchBranch()), Block((MLP(16),), SketchBranch()))
    model = Decoder("reversible", 11, 8, (SketchReversible(halves), SketchReversible(halves))).build(streaming=True)
    tokens = torch.randint(11, (2, 9))
    whole, state, steps = model(tokens), None, []
    for t in range(9):
        out = model.step(tokens[:, t : t + 1], state)
        state = out.state
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole.logits)
