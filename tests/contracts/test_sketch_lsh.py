"""LSH attention equals the oracle on its plan, obeys choices, and refuses to promise exact streaming."""

import pytest
import torch
from sketch_lsh import SketchLSH, attention

from formers import MLP, Block, ConfigError, CrossAttention, Decoder, Encoder, EncoderDecoder, stack
from formers.attention.oracle import attend_dense
from formers.call import Call
from formers.places import Places
from formers.spec import Site
from formers.tokens import place


@pytest.mark.parametrize("strict", [False, True])
def test_equals_the_oracle_on_its_materialised_plan(strict: bool) -> None:
    layer = attention(SketchLSH(4, 6, 3, strict)).build(Site(8, causal=True))
    x, mask = torch.randn(2, 19, 8), torch.ones(2, 19, dtype=torch.bool)
    mask[0, :5] = mask[1, -3:] = False
    at = place(torch.zeros(2, 19, dtype=torch.long), 0, mask, None)
    out = layer(x, Call(at))
    tiles = layer.select.plan(out.choices, at, at).groups[0]
    met = torch.zeros(2, 2, 19, 19, dtype=torch.bool)
    for b, h, n in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(tiles.q_index.shape[2])):
        for i, q in enumerate(tiles.q_index[b, h, n]):
            for j, k in enumerate(tiles.k_index[b, h, n]):
                met[b, h, q, k] |= q >= 0 and k >= 0 and (tiles.meet is None or tiles.meet[b, h, n, i, j])
    visible = met & torch.ones(19, 19).tril().bool() & mask[:, None, None]
    k, v = layer.projection.keys_values(x)
    heads = attend_dense(layer.projection.queries(x), k, v, visible, scale=1.0, bias=-1e5 * torch.eye(19))
    torch.testing.assert_close(out.y[mask], layer.projection.output(heads)[mask], atol=1e-9, rtol=1e-9)
    assert 0 < visible.sum() < 2 * 2 * 19 * 10  # some pairs were left out


def test_choices_given_back_are_used_and_one_chunk_is_plain_attention() -> None:
    layer, x = attention(SketchLSH(4, 6)).build(Site(8, causal=True)), torch.randn(1, 16, 8)
    out = layer(x, Call(Places.run(0, 16)))
    again = layer(x, Call(Places.run(0, 16), seed=1), choices=out.choices)
    torch.testing.assert_close(again.y, out.y)
    assert not torch.equal(layer(x, Call(Places.run(0, 16), seed=1)).y, out.y)
    whole = attention(SketchLSH(16, 6, 1)).build(Site(8, causal=True))
    plain = attention(None).build(Site(8, causal=True))
    plain.load_state_dict(whole.state_dict())
    first = whole(x[:, :11], Call(Places.run(0, 11)))
    rest = whole(x[:, 11:], Call(Places.run(11, 5)), first.state)
    torch.testing.assert_close(torch.cat([first.y, rest.y], 1), plain(x, Call(Places.run(0, 16))).y)


def test_alike_layers_hash_unlike_and_exact_streaming_is_refused() -> None:
    spec = Decoder("lsh", 11, 8, stack(Block((attention(SketchLSH(4, 6)), MLP(8))), times=2))
    one, two = (block.sublayers[0].select for block in spec.build().stack.blocks)
    call = Call(Places.run(0, 4), seed=3)
    assert torch.equal(one.rotations(call), one.rotations(call))
    assert not torch.equal(one.rotations(call), two.rotations(call))
    with pytest.raises(ConfigError, match="SketchLSH chooses from the whole sequence"):
        spec.build(streaming=True)
    source = Encoder("source", 11, 8, (Block((attention(SketchLSH(4, 6)),)),))
    target = Decoder("target", 11, 8, (Block((CrossAttention(2),)),))
    EncoderDecoder("lsh", source, target).build(streaming=True)  # an encoder sees its whole sequence at once
    with pytest.raises(ConfigError, match="there are 1 key heads"):
        spec.replace(blocks=(Block((attention(None).replace(kv_heads=1),)),)).build()
