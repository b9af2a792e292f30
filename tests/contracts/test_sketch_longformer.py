"""Longformer's attention equals a dense formula, and the published code."""

import pytest
import torch
from sketch_longformer import SketchLongformer, SketchLongformerLayer
from torch import Tensor

from formers import MLP, Block, ConfigError, Decoder, Encoder
from formers.attention.oracle import attend_dense
from formers.call import Call
from formers.spec import Site
from formers.tokens import place


def setting(length: int, window: int) -> tuple[SketchLongformerLayer, Tensor, Tensor, Tensor]:
    """A layer, its input, what is real, and global tokens: two in one row, one (beside a padded one) in the other."""
    layer = SketchLongformer(2, window).build(Site(8))
    mask, glob = torch.ones(2, length, dtype=torch.bool), torch.zeros(2, length, dtype=torch.long)
    mask[1, -5:] = False
    glob[0, 0] = glob[0, 9] = glob[1, 3] = glob[1, -1] = 1
    return layer, torch.randn(2, length, 8), mask, glob


def run(layer: SketchLongformerLayer, x: Tensor, mask: Tensor, glob: Tensor) -> Tensor:
    return layer(x, Call(place(glob, 0, mask, {"global": glob}))).y


def test_equals_the_dense_formula() -> None:
    layer, x, mask, glob = setting(21, 4)
    near = (torch.arange(21)[:, None] - torch.arange(21)).abs() < 4
    local = (near | (glob > 0)[:, None]) & mask[:, None]
    k, v = layer.projection.keys_values(x)
    heads = attend_dense(layer.projection.queries(x), k, v, local[:, None])
    own = [layer.split(project(x)) for project in (layer.q_global, layer.k_global, layer.v_global)]
    heads = torch.where((glob > 0)[:, None, :, None], attend_dense(*own, mask[:, None, None]), heads)
    torch.testing.assert_close(run(layer, x, mask, glob)[mask], layer.projection.output(heads)[mask])


def test_a_row_alone_is_the_row_in_a_padded_batch() -> None:
    layer, x, mask, glob = setting(21, 4)
    alone = run(layer, x[1:, :16], mask[1:, :16], glob[1:, :16])
    torch.testing.assert_close(run(layer, x, mask, glob)[1:, :16], alone)
    torch.testing.assert_close(
        run(layer, x.flip(1), mask.flip(1), glob.flip(1)).flip(1)[mask], run(layer, x, mask, glob)[mask]
    )


def test_the_work_grows_with_the_length_not_with_its_square() -> None:
    layer = SketchLongformer(2, 8).build(Site(8))

    def pairs(length: int) -> int:
        glob = torch.zeros(1, length, dtype=torch.long)
        glob[0, 0] = 1
        return layer.plan(place(glob, 0, None, {"global": glob}), glob > 0, torch.zeros(1, 1, dtype=torch.long)).pairs

    assert pairs(512) < 2.2 * pairs(256)


def test_is_marked_in_the_models_input_and_refused_in_a_decoder() -> None:
    block = Block((SketchLongformer(2, 4), MLP(8)))
    model = Encoder("longformer", 11, 8, (block,)).build()
    tokens, glob = torch.randint(11, (1, 30)), torch.zeros(1, 30, dtype=torch.long)
    local = model(tokens, marks={"global": glob}).hidden
    glob[:, 0] = 1
    change = (model(tokens, marks={"global": glob}).hidden - local).abs().amax(-1)
    assert (change > 1e-9).nonzero()[:, 1].tolist() == [0, *range(4, 30)]  # 1, 2, 3 had it in their window already
    with pytest.raises(ConfigError, match="sees the future"):
        Decoder("longformer", 11, 8, (block,)).build()


def test_equals_the_published_code() -> None:
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    layer, x, mask, glob = setting(24, 4)  # theirs is 6 wide in all: 3 on each side, and the token itself
    config = longformer.LongformerConfig(
        hidden_size=8, num_attention_heads=2, attention_window=[6], attention_probs_dropout_prob=0.0
    )
    theirs = longformer.LongformerSelfAttention(config, 0).double()
    names = {"query": "projection.q_proj", "key": "projection.k_proj", "value": "projection.v_proj"}
    names |= {"query_global": "q_global", "key_global": "k_global", "value_global": "v_global"}
    for their, our in names.items():
        getattr(theirs, their).load_state_dict(layer.get_submodule(our).state_dict())
    layer.projection.output = lambda heads: heads.transpose(1, 2).flatten(2)  # their output product is elsewhere
    glob = glob * mask
    told = torch.where(mask, 0.0, -10000.0) + 10000.0 * glob
    out = theirs(x, told, told < 0, told > 0, True)[0]
    torch.testing.assert_close(run(layer, x, mask, glob)[mask], out[mask])
