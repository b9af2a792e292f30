"""Longformer's attention equals a dense formula, whatever is padded and however many tokens of a row are global."""

from typing import Any

import pytest
import torch
from torch import Tensor

from formers import (
    MLP,
    Block,
    ByHead,
    Causal,
    ConfigError,
    Decoder,
    Dilated,
    Encoder,
    EncoderDecoder,
    LongformerAttention,
    Reversible,
    Rotary,
    Window,
)
from formers.attention import Everything, Pattern
from formers.attention.longformer import seers_of
from formers.attention.oracle import attend_dense
from formers.attention.project import split_heads
from formers.call import Call
from formers.places import Places, keys, queries
from formers.spec import Site
from formers.tokens import place

LENGTH, HEADS = 21, 2
PATTERNS = [Window(4), Window(1), ByHead((Window(2), Dilated(3, 3))), Everything(), Causal() & Window(5)]
HEAD = torch.arange(HEADS)[:, None, None]


def setting(pattern: Pattern = Window(4), **changes: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A layer, its input, what is real, and marks: two in one row, one (beside a padded one) in the next, then none."""
    torch.manual_seed(0)
    layer = LongformerAttention(HEADS, pattern, **changes).build(Site(8)).double()
    mask, marks = torch.ones(3, LENGTH, dtype=torch.bool), torch.zeros(3, LENGTH, dtype=torch.long)
    mask[1, -5:] = mask[2, -2:] = False
    marks[0, 0] = marks[0, 9] = marks[1, 3] = marks[1, -1] = 1
    return layer, torch.randn(3, LENGTH, 8, dtype=torch.float64), mask, marks


def run(layer: Any, x: Tensor, mask: Tensor | None, marks: Tensor) -> Tensor:
    return layer(x, Call(place(marks, 0, mask, {"global": marks}))).y


def dense(layer: Any, x: Tensor, mask: Tensor, marks: Tensor) -> Tensor:
    """The paper's words, pair by pair."""
    at, is_global = place(marks, 0, mask, None), (marks > 0) & mask
    near = layer.spec.pattern.visible(queries(at), keys(at), HEAD)
    seen = (near | is_global[:, None, None]) & mask[:, None, None]
    q, k, v = layer.projection.together(x)
    heads = attend_dense(turned(layer, q, at), turned(layer, k, at), v, seen)
    q, k, v = (split_heads(project(x), 4) for project in (layer.q_global, layer.k_global, layer.v_global))
    own = attend_dense(turned(layer, q, at), turned(layer, k, at), v, mask[:, None, None])
    return layer.projection.output(torch.where(is_global[:, None, :, None], own, heads))


def turned(layer: Any, x: Tensor, at: Places) -> Tensor:
    return layer.position.turn(x, at, Call(at).memo)


@pytest.mark.parametrize("changes", [{}, {"position": Rotary()}], ids=["no position", "rotary"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_equals_the_dense_formula(pattern: Pattern, changes: dict[str, Any]) -> None:
    layer, x, mask, marks = setting(pattern, **changes)
    torch.testing.assert_close(run(layer, x, mask, marks)[mask], dense(layer, x, mask, marks)[mask])
    whole = torch.ones_like(mask)
    torch.testing.assert_close(run(layer, x, None, marks), dense(layer, x, whole, marks))


def test_gradients_are_those_of_the_dense_formula() -> None:
    layer, x, mask, marks = setting()
    x.requires_grad_()
    inputs, weights = [x, *layer.parameters()], torch.randn(3, LENGTH, 8, dtype=torch.float64) * mask[..., None]
    found, wanted = (torch.autograd.grad((way(layer, x, mask, marks) * weights).sum(), inputs) for way in (run, dense))
    torch.testing.assert_close(found, wanted)


def test_long_texts_equal_the_dense_formula() -> None:
    """Beyond the length up to which all pairs are worked on at once."""
    layer, *_ = setting(Window(9))
    x, marks = torch.randn(1, 1500, 8, dtype=torch.float64), torch.zeros(1, 1500, dtype=torch.long)
    marks[0, [3, 700, 1499]] = 1
    mask = torch.ones_like(marks, dtype=torch.bool)
    torch.testing.assert_close(run(layer, x, None, marks), dense(layer, x, mask, marks))


def test_a_row_alone_is_the_row_in_a_padded_batch() -> None:
    layer, x, mask, marks = setting()
    together = run(layer, x, mask, marks)
    for row, length in ((1, LENGTH - 5), (2, LENGTH - 2)):
        part = slice(row, row + 1), slice(0, length)
        torch.testing.assert_close(together[part], run(layer, x[part], None, marks[part]))
    backwards = run(layer, x.flip(1), mask.flip(1), marks.flip(1)).flip(1)
    torch.testing.assert_close(backwards[mask], together[mask])


def test_without_the_mark_no_token_is_global() -> None:
    layer, x, mask, marks = setting()
    unmarked = layer(x, Call(place(marks, 0, mask, None))).y
    torch.testing.assert_close(unmarked, run(layer, x, mask, torch.zeros_like(marks)), rtol=0, atol=0)
    torch.testing.assert_close(unmarked[mask], dense(layer, x, mask, torch.zeros_like(marks))[mask])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_marks_may_be_of_any_type(dtype: torch.dtype) -> None:
    layer, x, mask, marks = setting()
    torch.testing.assert_close(run(layer, x, mask, marks.to(dtype)), run(layer, x, mask, marks), rtol=0, atol=0)


def test_a_global_token_is_seen_once_though_it_is_near() -> None:
    """Its key counts once in a softmax over the window and the global tokens."""
    layer, x, _, marks = setting()
    marks[0] = 1
    torch.testing.assert_close(run(layer, x[:1], None, marks[:1]), dense(layer, x[:1], marks[:1] > 0, marks[:1]))


def test_rows_that_differ_in_their_global_tokens() -> None:
    _, _, mask, marks = setting()
    seers = seers_of(place(marks, 0, mask, {"global": marks}), "global")
    assert seers is not None
    assert torch.where(seers.real, seers.place, -1).tolist() == [[0, 9], [3, -1], [-1, -1]]
    assert seers_of(place(marks, 0, mask, None), "global") is None
    assert seers_of(place(marks, 0, ~(marks > 0), {"global": marks}), "global") is None


def test_the_marks_of_a_model_and_what_they_reach() -> None:
    model = Encoder("longformer", 11, 8, (Block((LongformerAttention(2, Window(4)), MLP(8))),)).build().double()
    tokens, marks = torch.randint(11, (1, 30)), torch.zeros(1, 30, dtype=torch.long)
    local = model(tokens).hidden
    marks[:, 0] = 1
    change = (model(tokens, marks={"global": marks}).hidden - local).abs().amax(-1)
    assert (change > 1e-9).nonzero()[:, 1].tolist() == [0, *range(4, 30)]  # 1, 2, 3 had it in their window already


def test_a_mark_of_the_wrong_shape_is_refused() -> None:
    model = Encoder("longformer", 11, 8, (Block((LongformerAttention(2, Window(4)), MLP(8))),)).build()
    with pytest.raises(ValueError, match=r"global has shape \(1, 29\), tokens have \(1, 30\)"):
        model(torch.zeros(1, 30, dtype=torch.long), marks={"global": torch.zeros(1, 29)})


def test_a_mark_that_nobody_reads_is_refused() -> None:
    tokens = torch.zeros(1, 30, dtype=torch.long)
    model = Encoder("longformer", 11, 8, (Block((LongformerAttention(2, Window(4)), MLP(8))),)).build()
    with pytest.raises(ValueError, match=r"no part of this model reads a mark named 'globl': did you mean 'global'\?"):
        model(tokens, marks={"globl": tokens})
    plain = Encoder("plain", 11, 8, (Block((MLP(8),)),)).build()
    with pytest.raises(ValueError, match="a mark named 'global': it reads none"):
        plain(tokens, marks={"global": tokens})


@pytest.mark.parametrize("pattern", [Window(4), Causal() & Window(4)])
def test_a_decoder_is_refused_and_told_what_to_take(pattern: Pattern) -> None:
    block = Block((LongformerAttention(2, pattern), MLP(8)))
    with pytest.raises(
        ConfigError, match=r"sees all of it\s+fix: Attention\(heads=2, pattern=Causal\(\) & Window\(size=4\)\)"
    ):
        Decoder("longformer", 11, 8, (block,)).build()


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (LongformerAttention(3), "does not split into 3 heads"),
        (LongformerAttention(2, Window(0)), "a window of 0 sees nothing"),
        (LongformerAttention(2, dropout=1.5), "dropout"),
    ],
)
def test_what_cannot_be_built(layer: LongformerAttention, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Encoder("longformer", 11, 8, (Block((layer, MLP(8))),)).build()


def test_serves_in_an_encoder_whose_output_is_decoded_and_in_a_reversible_stack() -> None:
    reads = Reversible((Block((LongformerAttention(2, Window(2)), MLP(8))),), "mean")
    source = Encoder("source", 11, 8, (reads,))
    target = Decoder("target", 11, 8, (Block((MLP(8),)),))
    model = EncoderDecoder("pair", source, target).build()
    assert model.source(torch.zeros(1, 5, dtype=torch.long), marks={"global": torch.ones(1, 5)}).hidden.isfinite().all()


def test_dropout_acts_in_training_alone() -> None:
    layer, x, mask, marks = setting(dropout=0.5)
    assert torch.equal(run(layer.eval(), x, mask, marks), run(layer, x, mask, marks))
    layer.train()
    assert not torch.equal(run(layer, x, mask, marks), run(layer, x, mask, marks))
