"""Work in parts comes to the same as work in one, and keeps less."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import GLU, MLP, Attention, Block, ConfigError, Decoder, stack
from formers.call import Call, Out
from formers.parts import Part, in_parts, parts_of, pieces
from formers.places import Places
from formers.spec import Site

CALL = Call(Places.run(0, 13))


def layer_of(kind: Any, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(12, **fields).build(Site(8)).double()


def some() -> Tensor:
    return torch.randn(2, 13, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def slopes(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(layer(x, CALL).y.square().sum(), [x, *layer.parameters()])


@pytest.mark.parametrize("kind", [MLP, GLU])
@pytest.mark.parametrize("chunk", [1, 5, 12, 13, 100])
def test_chunks_are_the_whole(kind: Any, chunk: int) -> None:
    whole, cut, x = layer_of(kind), layer_of(kind, chunk=chunk), some()
    torch.testing.assert_close(cut(x, CALL).y, whole(x, CALL).y, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(slopes(cut, x), slopes(whole, x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", [MLP, GLU])
def test_with_dropout_the_backward_pass_meets_the_same_draws(kind: Any) -> None:
    cut, x = layer_of(kind, chunk=5, dropout=0.4), some()
    torch.manual_seed(3)
    y = cut(x, CALL).y
    torch.manual_seed(4)
    found = torch.autograd.grad(y.square().sum(), [x, *cut.parameters()])
    torch.manual_seed(3)
    expected = torch.cat([cut._at_once(x[:, rows]).y for rows in pieces(13, 5)], 1)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *cut.parameters()])
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)


def test_hidden_units_of_a_chunk_at_a_time() -> None:
    widest: list[int] = []
    cut = layer_of(MLP, chunk=5)
    cut.up.register_forward_hook(lambda module, given, made: widest.append(made.shape[1]))
    cut(some(), CALL).y.sum().backward()
    assert widest == [5, 5, 3] * 2 or sorted(widest) == [3, 3, 5, 5, 5, 5]
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.shape[-1]) or t, lambda t: t):
        cut(some(), CALL)
    assert 12 not in sizes


def test_rows_of_other_lengths_than_the_call_are_cut_too() -> None:
    """A layer inside another one may be given fewer tokens."""
    whole, cut = layer_of(MLP), layer_of(MLP, chunk=5)
    torch.testing.assert_close(cut(some()[:, :7], CALL).y, whole(some()[:, :7], CALL).y, atol=1e-14, rtol=1e-14)


def test_parts_that_share_rows_are_added_and_all_they_say_is_kept() -> None:
    def part(rows: slice, times: int) -> Part:
        return Part(rows, lambda x: Out(x * times, None, {"size": x.sum()}, torch.tensor(times), {"n": (x.mean(),)}))

    x = some()
    parts = [part(slice(0, 4), 1), part(slice(0, 4), 2), part(slice(4, None), 5)]
    out = in_parts(parts, x)
    torch.testing.assert_close(out.y, torch.cat([x[:, :4] * 3, x[:, 4:] * 5], 1))
    assert [int(choice) for choice in out.choices] == [1, 2, 5] and len(out.records["n"]) == 3
    torch.testing.assert_close(out.losses["size"], 2 * x[:, :4].sum() + x[:, 4:].sum())


def test_a_layer_that_continues_a_state_is_run_whole() -> None:
    cut = layer_of(MLP, chunk=5)
    assert parts_of(cut, CALL) is not None and parts_of(cut, CALL, past="something") is None
    assert parts_of(layer_of(MLP), CALL) is None and parts_of(nn.Linear(1, 1), CALL) is None


def test_chunks_without_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)chunks of 0 tokens.*fix: chunk=1024"):
        Decoder("model", 11, 8, (Block((MLP(12, chunk=0),)),)).build()


def test_nothing_is_remembered_where_nothing_is_asked_for() -> None:
    model = Decoder("model", 11, 8, stack(Block((Attention(2), MLP(12))), times=2)).build().eval()
    tokens = torch.randint(11, (2, 9))
    first = model(tokens[:, :5])
    out = model(tokens, remember=False)
    assert out.state is None and first.state is not None
    torch.testing.assert_close(out.logits, model(tokens).logits, rtol=0, atol=0)
    later = model(tokens[:, 5:], first.state, remember=False)
    assert later.state is None
    torch.testing.assert_close(later.logits, out.logits[:, 5:])
    call = Call(Places.run(0, 9), remember=False)
    assert model.stack.blocks[0].sublayers[0](torch.randn(2, 9, 8), call).state is None
