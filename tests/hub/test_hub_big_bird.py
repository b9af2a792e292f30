"""Big Bird: full and sparse attention of transformers' models, as they train, and back again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import BERT_SHAPE, awake, configure, padding, round_trip, saved, some_tokens
from published import transformers as tf
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

from formers import CheckpointError, ConfigError, PublishedBlocks, hub, make
from formers.hub.published import config_from_spec

CLOSE = {"atol": 1e-5, "rtol": 0.0}
LENGTH = 44  # 11 blocks of 4, 2 more than those below which their code attends to everything
SPARSE: dict[str, Any] = {
    "max_position_embeddings": LENGTH, "block_size": 4, "num_random_blocks": 2, "attention_type": "block_sparse",
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
SEGMENTS = (some_tokens(length=LENGTH, seed=5) % 2).sort(1).values


def big_bird(folder: Path, kind: str = "BigBirdForMaskedLM", **changes: Any) -> tuple[Any, Path]:
    config = tf.BigBirdConfig(**{**BERT_SHAPE, **SPARSE, **changes})
    model = awake(getattr(tf, kind)(config))
    return model, saved(model, folder)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("act", ["gelu_new", "relu"])
def test_full_attention(tmp_path: Path, act: str, scaled: bool) -> None:
    theirs, folder = big_bird(
        tmp_path / "theirs", attention_type="original_full", hidden_act=act, rescale_embeddings=scaled
    )
    mask = padding("right", length=LENGTH)
    with torch.no_grad():  # in double precision: scaled embeddings make logits that single precision tells to 1e-5
        expected = theirs.double()(
            some_tokens(length=LENGTH), attention_mask=mask.long(), token_type_ids=SEGMENTS
        ).logits
        out = hub.load(folder).double()(some_tokens(length=LENGTH), mask=mask, marks={"segment": SEGMENTS}).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(out[mask], expected[mask], atol=1e-10, rtol=0.0)


@pytest.mark.parametrize("padded", [False, True])
def test_sparse_attention_as_it_trains(tmp_path: Path, padded: bool) -> None:
    theirs, folder = big_bird(tmp_path / "theirs")
    mask = padding("right", length=LENGTH) if padded else torch.ones_like(SEGMENTS, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs.train()(
            some_tokens(length=LENGTH), attention_mask=mask.long(), token_type_ids=SEGMENTS
        ).logits
        out = hub.load(folder)(some_tokens(length=LENGTH), mask=mask, marks={"segment": SEGMENTS}).logits
        evaluated = theirs.eval()(some_tokens(length=LENGTH), token_type_ids=SEGMENTS).logits
    assert theirs.bert.attention_type == "block_sparse"
    torch.testing.assert_close(out[mask], expected[mask], **CLOSE)
    assert (evaluated[mask] - expected[mask]).abs().max() > 0.1  # so that the comparison says something


def test_gradients_are_theirs(tmp_path: Path) -> None:
    theirs, folder = big_bird(tmp_path / "theirs")
    ours, tokens = hub.load(folder), some_tokens(length=LENGTH)
    theirs.train()(tokens).logits.logsumexp(-1).sum().backward()
    ours(tokens).logits.logsumexp(-1).sum().backward()
    query = theirs.bert.encoder.layer[0].attention.self.query.weight.grad
    found = ours.stack.blocks[0].sublayers[0].projection.q_proj.weight.grad
    torch.testing.assert_close(found, query, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("length", "size", "count", "heads", "seed"),
    [
        (4096, 64, 3, 3, 7),
        (1024, 64, 3, 2, 0),
        (3072, 64, 2, 2, 1),
        (2048, 64, 3, 2, 4),
        (52, 4, 1, 3, 2),
        (48, 4, 2, 2, 0),
    ],
)
def test_the_blocks_are_those_that_their_code_draws(length: int, size: int, count: int, heads: int, seed: int) -> None:
    config = tf.BigBirdConfig(
        max_position_embeddings=length,
        block_size=size,
        num_random_blocks=count,
        num_attention_heads=heads,
        hidden_size=12 * heads,
    )
    theirs, blocks = BigBirdBlockSparseAttention(config, seed).train(), length // size
    np.random.seed(seed)
    if length in (1024, 3072, 4096):
        drawn = [
            theirs._bigbird_block_rand_mask(length, length, size, size, count, last_idx=1024) for _ in range(heads)
        ]
    else:
        plan = theirs._get_rand_attn_plan(length, size, count)
        drawn = theirs._bigbird_block_rand_mask_with_head(length, length, size, size, heads, *plan)
    ours = PublishedBlocks(size, count, heads, length=length, seed=seed).drawn(blocks)
    assert torch.equal(ours[:, 1:-1], torch.from_numpy(np.stack(drawn)).long())
    assert (ours[:, [0, -1]] == -1).all()


def test_a_model_too_short_to_be_sparse_is_full(tmp_path: Path) -> None:
    theirs, folder = big_bird(tmp_path / "theirs", max_position_embeddings=36)
    ours = hub.load(folder)
    assert ours.spec.blocks[0].sublayers[0].pattern is None
    with torch.no_grad():
        expected = theirs(some_tokens(length=36)).logits
        torch.testing.assert_close(ours(some_tokens(length=36)).logits, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["BigBirdForMaskedLM", "BigBirdForPreTraining"])
@pytest.mark.parametrize("attention", ["original_full", "block_sparse"])
def test_round_trip(tmp_path: Path, kind: str, attention: str) -> None:
    theirs, folder = big_bird(tmp_path / "theirs", kind, attention_type=attention)
    again, tokens = round_trip(folder, tmp_path), some_tokens(length=LENGTH)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["attention_type"] == attention
    with torch.no_grad():
        for old, new in zip(theirs(tokens).to_tuple(), again(tokens).to_tuple(), strict=True):
            assert torch.equal(old, new)


def test_bare_model(tmp_path: Path) -> None:
    theirs, folder = big_bird(tmp_path / "theirs", "BigBirdModel", attention_type="original_full")
    ours = hub.load(folder)
    with torch.no_grad():
        out, expected = ours(some_tokens()), theirs(some_tokens())
        torch.testing.assert_close(out.hidden, expected.last_hidden_state, **CLOSE)
        torch.testing.assert_close(out.pooled, expected.pooler_output, **CLOSE)
        hub.export(ours, tmp_path / "out")
        again = tf.BigBirdModel.from_pretrained(tmp_path / "out").eval()(some_tokens())
    assert torch.equal(again.pooler_output, expected.pooler_output)


def test_poolers(tmp_path: Path) -> None:
    theirs, folder = big_bird(tmp_path / "theirs", "BigBirdForPreTraining", attention_type="original_full")
    with torch.no_grad():
        out, expected = hub.load(folder)(some_tokens()), theirs(some_tokens())
    torch.testing.assert_close(out.pooled, expected.seq_relationship_logits, **CLOSE)


def test_defaults_are_the_members_but_for_what_chance_draws() -> None:
    theirs, ours = hub.spec_from_config(tf.BigBirdConfig().to_dict()), make("big_bird")
    assert theirs.replace(blocks=(), pooler=None) == ours.replace(blocks=())
    for there, here in zip(theirs.blocks, ours.blocks, strict=True):
        seen, sees = there.sublayers[0].pattern, here.sublayers[0].pattern
        assert seen.left == sees.left
        assert (seen.right.size, seen.right.count, seen.right.heads) == (
            sees.right.size,
            sees.right.count,
            sees.right.heads,
        )
        assert seen.right.seed == sees.right.seed
        assert there.replace(sublayers=here.sublayers) == here


def test_blocks_that_their_code_does_not_draw_are_refused() -> None:
    spec = make("big_bird", vocab=40, dim=32, depth=2, heads=4, hidden=48, length=44, block=4, random=2)
    with pytest.raises(ConfigError, match=r"big_bird comes nearest.*\n.*pattern.* is .*RandomBlocks"):
        config_from_spec(spec)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention_type": "sparse"}, "attention_type is \"sparse\", and can only be original_full or block_sparse"),
        ({"block_size": 0}, "block_size is 0, and can only be a whole number from 1 on"),
        ({"num_random_blocks": -1}, "num_random_blocks is -1, and can only be a whole number from 1 on"),
        ({"use_bias": False}, "use_bias is false, and can only be true"),
        ({"is_decoder": True}, "is_decoder is true"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    _, folder = big_bird(tmp_path / "theirs")
    configure(folder, **changes)
    with pytest.raises(CheckpointError, match=told):
        hub.load(folder)
