"""A dense decoder's sparse counterpart: what changes in the spec, what it takes over, and what it learns layer by layer."""

from typing import Any

import pytest
import torch
from torch import Tensor

from formers import (
    GLU,
    MLP,
    Attention,
    Block,
    ConfigError,
    Decoder,
    MultConv,
    Reversible,
    Rotary,
    SparseFF,
    make,
    stack,
)
from formers.convert import Sparsity, distil, inherit, missed, pairs_of, sparse_counterpart
from formers.head import Untied
from formers.spec import Spec

SPARSITY = Sparsity(block=8, rank=4, modules=4)
TINY = {"vocab": 40, "dim": 32, "depth": 2, "heads": 4}


def gpt2() -> Any:
    return make("gpt2", **TINY, length=32, dropout=0.0)


def batch(step: int) -> Tensor:
    return torch.randint(40, (4, 16), generator=torch.Generator().manual_seed(step))


def counterparts(spec: Any) -> tuple[Any, Any]:
    """The dense model, and its sparse one before it has learned anything."""
    torch.manual_seed(0)
    old = spec.build().eval()
    new = sparse_counterpart(spec, SPARSITY).build()
    inherit(old, new, pairs_of(old, new))
    return old, new.eval()


def test_every_dense_layer_becomes_sparse() -> None:
    spec = sparse_counterpart(gpt2(), SPARSITY)
    attention, feed_forward = spec.blocks[0].sublayers
    assert feed_forward == SparseFF(128, 8, 4)
    assert attention.projection == MultConv(4)
    assert spec.blocks[0] == spec.blocks[1]
    assert (spec.name, spec.embedding, spec.norm, spec.head) == (
        "sparse_gpt2",
        *[getattr(gpt2(), n) for n in ("embedding", "norm", "head")],
    )


def test_gated_feed_forwards_keep_their_parameters_and_grouped_heads_become_whole() -> None:
    spec = sparse_counterpart(make("llama", **TINY, kv_heads=2, hidden=44), SPARSITY)
    attention, feed_forward = spec.blocks[0].sublayers
    assert feed_forward.hidden == 72  # 66 units have as many numbers in two matrices as 44 in three; 9 whole blocks
    assert attention.kv_heads is None and attention.position == Rotary()


def test_layers_inside_other_layers_are_found() -> None:
    inner = stack(Block((Attention(4), MLP(16))), times=2)
    spec = Decoder("within", 40, 32, (Reversible(inner),), head=Untied())
    blocks = sparse_counterpart(spec, SPARSITY).blocks[0].blocks
    assert [type(block.sublayers[1]) for block in blocks] == [SparseFF, SparseFF]


@pytest.mark.parametrize(("sparsity", "kept"), [(Sparsity(None, 4, 4), MLP), (Sparsity(8, 4, None), SparseFF)])
def test_one_kind_can_stay_dense(sparsity: Sparsity, kept: type[Spec]) -> None:
    attention, feed_forward = sparse_counterpart(gpt2(), sparsity).blocks[0].sublayers
    assert type(feed_forward) is kept
    assert (type(attention.projection) is MultConv) == (sparsity.modules is not None)


@pytest.mark.parametrize(
    ("spec", "sparsity"),
    [
        (gpt2(), Sparsity(None, 4, None)),
        (make("bert", **TINY, length=32), SPARSITY),
        (Decoder("sparse already", 40, 32, (Block((SparseFF(16, 8, 4),)),)), SPARSITY),
    ],
)
def test_what_has_nothing_to_become_sparse_is_refused(spec: Spec, sparsity: Sparsity) -> None:
    with pytest.raises(ConfigError, match=r"no dense layer|no Decoder"):
        sparse_counterpart(spec, sparsity)


def test_all_else_is_taken_over() -> None:
    old, new = counterparts(gpt2())
    tokens = batch(0)
    torch.testing.assert_close(new.embedding.tokens.weight, old.embedding.tokens.weight)
    torch.testing.assert_close(
        new.stack.blocks[1].residual.norms[0].weight, old.stack.blocks[1].residual.norms[0].weight
    )
    torch.testing.assert_close(new.stack.blocks[0].sublayers[1].up.weight, old.stack.blocks[0].sublayers[1].up.weight)
    assert (new(tokens).logits - old(tokens).logits).abs().max() > 0


def test_layers_come_near_to_those_that_teach_them_and_nothing_else_moves() -> None:
    old, new = counterparts(gpt2())
    for parameter in old.parameters():  # layers that say something
        torch.nn.init.normal_(parameter, std=0.1)
    pairs = pairs_of(old, new)
    assert [pair.name for pair in pairs] == [f"stack.blocks.{b}.sublayers.{s}" for b in range(2) for s in range(2)]
    outside = {name: t.clone() for name, t in new.state_dict().items() if ".sublayers." not in name}
    before = missed(old, pairs, batch(0))
    told: list[float] = []
    distil(old, pairs, batch, steps=60, learning_rate=1e-2, tick=told.append)
    after = missed(old, pairs, batch(0))
    assert all(less < more for less, more in zip(after, before, strict=True))
    assert told[-1] == 1.0 and not any(layer.training for layer in new.modules())
    assert all(torch.equal(new.state_dict()[name], tensor) for name, tensor in outside.items())


def test_a_layer_of_the_same_build_needs_no_teaching() -> None:
    spec = Decoder("mixed", 40, 32, (Block((GLU(16), MLP(16))),))
    old = spec.build().eval()
    assert pairs_of(old, spec.build()) == []
