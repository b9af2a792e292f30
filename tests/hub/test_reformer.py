"""Reformer: logits and gradients of transformers' model with copied weights and its own buckets."""

import functools
from pathlib import Path

import pytest
import torch
from published import CLOSE, some_tokens
from published import transformers as tf
from published_reformer import CASES, SHAPE, Buckets, both, noted, reformer
from torch import nn

from formers import LSH, hub
from formers.attention.lsh import LSHRule
from formers.attention.oracle import attend_dense
from formers.call import Call
from formers.family.content import lsh_attention
from formers.places import Places
from formers.spec.core import Site
from formers.tokens import place


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 13, 24, 47])
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At all lengths: up to one chunk, where attention is plain, and beyond, where theirs fills up the last chunk."""
    theirs, folder = reformer(tmp_path / "theirs", **CASES[case])
    expected, logits = both(theirs, hub.load(folder), some_tokens(length=length), None, monkeypatch)
    torch.testing.assert_close(logits, expected, **CLOSE)


@pytest.mark.parametrize("case", CASES)
def test_logits_beside_padding(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, folder = reformer(tmp_path / "theirs", **CASES[case])
    tokens, mask = some_tokens(length=20), torch.arange(20) < torch.tensor([[20], [13], [6]])
    expected, logits = both(theirs, hub.load(folder), tokens, mask, monkeypatch)
    torch.testing.assert_close(logits[mask], expected[mask], **CLOSE)


@pytest.mark.parametrize("case", ["one round", "two rounds", "four rounds, far"])
def test_padding_at_the_first_places_is_met_by_nobody(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places 0 and 1 among it, which trax's code cannot mask (google/trax#820 and after)."""
    theirs, folder = reformer(tmp_path / "theirs", **CASES[case])
    tokens, mask = some_tokens(length=16), torch.arange(16) >= torch.tensor([[1], [2], [7]])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    ours = hub.load(folder)
    expected, logits = both(theirs, ours, tokens, mask, monkeypatch, position_ids=places)
    torch.testing.assert_close(logits[mask], expected[mask], **CLOSE)
    with torch.no_grad():
        other = ours(torch.where(mask, tokens, 7), mask=mask).logits
    torch.testing.assert_close(other[mask], logits[mask], rtol=0, atol=0)


def test_local_chunks_do_not_count_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs do, so that a row's result hangs on what stands in front of it; ours is that of the row alone."""
    theirs, folder = reformer(tmp_path / "theirs", **CASES["local alone"] | {"local_attn_chunk_length": 4})
    tokens, mask = some_tokens(1, 16), torch.arange(16)[None] >= 2
    places, ours = (mask.cumsum(1) - 1).clamp(min=0), hub.load(folder)
    expected, logits = both(theirs, ours, tokens, mask, monkeypatch, position_ids=places)
    alone, own = both(theirs, ours, tokens[:, 2:], None, monkeypatch)
    torch.testing.assert_close(logits[:, 2:], own, **CLOSE)
    torch.testing.assert_close(own, alone, **CLOSE)
    assert (expected[:, 2:] - alone).abs().max() > 0.1


def test_two_chunks_that_look_back_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs come round to a chunk's own, and meet each key of it twice; ours never do. Three chunks are alike."""
    far = {"local_attn_chunk_length": 4, "local_num_chunks_before": 2}
    theirs, folder = reformer(tmp_path / "theirs", **CASES["local alone"] | far)
    ours = hub.load(folder)
    for length in (4, 9, 13):
        expected, logits = both(theirs, ours, some_tokens(length=length), None, monkeypatch)
        torch.testing.assert_close(logits, expected, **CLOSE)
    longer = logits[:, :8]
    expected, logits = both(theirs, ours, some_tokens(length=13)[:, :8], None, monkeypatch)
    assert (logits - expected).abs().max() > 0.1
    torch.testing.assert_close(logits, longer, **CLOSE)


def test_filling_up_moves_what_their_rounds_wrap_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 tokens become 24, a multiple of both chunks; a round then ends with chunks of padding, which the first chunk
    of the next looks at in place of the last real one. Filled up alike, ours is the same."""
    theirs, folder = reformer(tmp_path / "theirs", local_attn_chunk_length=6)
    ours, tokens = hub.load(folder), some_tokens(length=13)
    full, mask = torch.cat([tokens, torch.zeros(3, 11, dtype=torch.int64)], 1), (torch.arange(24) < 13).expand(3, -1)
    expected, logits = both(theirs, ours, full, mask, monkeypatch)
    torch.testing.assert_close(logits[mask], expected[mask], **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits + theirs.lm_head.bias, expected[:, :13].double(), **CLOSE)
    for rule in (module for module in ours.modules() if isinstance(module, LSHRule)):
        buckets = rule.hash(torch.empty(3, 3, 24, 8))
        monkeypatch.setattr(rule, "hash", functools.partial(noted, buckets))
    with torch.no_grad():
        assert (ours(tokens).logits - expected[:, :13]).abs().max() > 1e-3


def test_their_single_precision_is_off_where_a_token_meets_only_itself(tmp_path: Path) -> None:
    """Four rounds with scores of -100,000, of which single precision keeps two digits behind the point: their weights
    do not add up to 1. Token 0 always meets only itself."""
    theirs, _ = reformer(tmp_path / "theirs", attn_layers=["lsh"], num_hashes=4)
    layer, x = theirs.reformer.encoder.layers[0].attention.self_attention, torch.randn(1, 8, 36)
    values = layer.value(x)
    with torch.no_grad():
        off = (layer(x).hidden_states - values)[:, 0].abs().max() / values[:, 0].abs().max()
        assert 1e-4 < off < 1e-2
        exact = layer.double()(x.double()).hidden_states
    torch.testing.assert_close(exact[:, 0], values[:, 0].double(), **CLOSE)


def test_their_head_leaves_out_its_bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since version 5; it is in the files, and was trained. Ours adds it."""
    theirs, folder = reformer(tmp_path / "theirs")
    assert theirs.lm_head.bias.std() > 0.1
    _, logits = both(theirs, hub.load(folder), some_tokens(), None, monkeypatch)
    with torch.no_grad():
        plain = theirs(some_tokens()).logits
    torch.testing.assert_close(logits - theirs.lm_head.bias.float(), plain.float(), **CLOSE)


def test_the_same_rotations_give_the_same_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, folder = reformer(tmp_path / "theirs", num_buckets=8, num_hashes=3)
    layer = theirs.reformer.encoder.layers[1].attention.self_attention
    rule = next(module for module in hub.load(folder).modules() if isinstance(module, LSHRule))
    x = torch.randn(2, 3, 40, 8)
    monkeypatch.setattr(Call, "chance", lambda call, path: torch.Generator().manual_seed(SHAPE["hash_seed"]))
    offset = torch.arange(3)[:, None] * 8
    theirs_of_x = layer._hash_vectors(x, 3, None).view(2, 3, 3, 40) - offset
    assert torch.equal(rule.hash(x, (8,), Call(Places.run(0, 40))).long(), theirs_of_x)


def test_up_to_one_chunk_it_is_the_dense_formula(tmp_path: Path) -> None:
    """softmax(q . k / |k|), a token meeting itself only where nothing else is there."""
    theirs, folder = reformer(tmp_path / "theirs", attn_layers=["lsh"], lsh_attn_chunk_length=16)
    layer = hub.load(folder).stack.blocks[0].blocks[0].sublayers[0]
    x = torch.randn(2, 16, 36)
    q, v = (part(x).view(2, 16, 3, 8).transpose(1, 2) for part in (layer.projection.qk_proj, layer.projection.v_proj))
    k, itself = nn.functional.normalize(q, dim=-1), torch.eye(16, dtype=torch.bool)
    visible = torch.ones(16, 16).tril(-1).bool()
    visible[0, 0] = True
    heads = attend_dense(q, k, v, visible.expand(2, 3, 16, 16), scale=1.0, bias=torch.zeros(()))
    expected = layer.projection.out_proj(heads.transpose(1, 2).flatten(2))
    with torch.no_grad():
        torch.testing.assert_close(layer(x, Call(Places.run(0, 16))).y, expected, **CLOSE)
        attention = theirs.reformer.encoder.layers[0].attention
        torch.testing.assert_close(attention.output(attention.self_attention(x).hidden_states), expected, **CLOSE)
    assert not visible[itself][1:].any()


@pytest.mark.parametrize("length", [4, 12, 24])
@pytest.mark.parametrize("padded", [False, True])
def test_hashing_to_both_sides(length: int, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer of an encoder, which wraps at both ends; its model is refused for the sake of the local layers."""
    shape = SHAPE | {"attn_layers": ["lsh"], "is_decoder": False, "lsh_num_chunks_after": 1}
    theirs = tf.ReformerModel(tf.ReformerConfig(**shape)).encoder.layers[0].attention.double()
    ours = lsh_attention(3, LSH(4, 2, 4, once=False, wrap=True, plain_below=4), head_dim=8).build(Site(dim=36)).double()
    layer, projection = theirs.self_attention, ours.projection
    pairs = (
        (layer.query_key, projection.qk_proj),
        (layer.value, projection.v_proj),
        (theirs.output.dense, projection.out_proj),
    )
    for published, mine in pairs:
        mine.load_state_dict(published.state_dict())
    x, mask = torch.randn(3, length, 36, dtype=torch.float64), torch.ones(3, length, dtype=torch.bool)
    if padded:
        mask = torch.arange(length) < torch.tensor([[length], [length - 1], [3]])
    with torch.no_grad():
        out = layer(x, mask.long())
        monkeypatch.setattr(ours.select, "hash", functools.partial(noted, out.buckets))
        mixed = ours(x, Call(place(x[..., 0].long(), 0, mask, None))).y
    torch.testing.assert_close(mixed[mask], theirs.output(out.hidden_states)[mask])


@pytest.mark.parametrize("case", ["local and hashing", "two rounds", "four rounds, far"])
def test_gradients(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both reversible stacks, in double precision; in training theirs takes no other length than all positions."""
    theirs, folder = reformer(tmp_path / "theirs", **CASES[case])
    tokens, ours = some_tokens(2, 48), hub.load(folder).double().train()
    buckets = Buckets(theirs)
    expected = theirs.double().train()(tokens).logits
    buckets.hand_to(ours, monkeypatch)
    logits = ours(tokens, remember=False).logits
    torch.testing.assert_close(logits - ours.head.proj.bias, expected)
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(upstream)
    logits.backward(upstream)
    slopes = {name: parameter.grad for name, parameter in ours.named_parameters()}
    wanted = dict(theirs.named_parameters())
    rows = hub.FORMATS["reformer"].weights(ours.spec).rows_for(slopes)
    for row in rows:
        if row.theirs != "lm_head.bias":
            torch.testing.assert_close(row.by.theirs([slopes[name] for name in row.ours]), wanted[row.theirs].grad)
    assert len(rows) == len(wanted)
