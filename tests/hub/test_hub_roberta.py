"""RoBERTa and Longformer: logits and hidden states of transformers' models, global tokens and padding included."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import BERT_SHAPE, CLOSE, awake, configure, padding, rewrite, round_trip, saved, some_tokens
from published import transformers as tf
from safetensors.torch import load_file
from torch import Tensor

from formers import CheckpointError, ConfigError, Pooler, Window, hub, make
from formers.attention.longformer import LongformerAttention

PAD = 1
SHAPE = {**BERT_SHAPE, "max_position_embeddings": 40, "pad_token_id": PAD, "layer_norm_eps": 1e-2}
WINDOWS = [4, 6, 8]  # theirs divide the padded length, which is a multiple of the largest
SIDES = ["none", "left", "right"]


def roberta(folder: Path, kind: str = "RobertaForMaskedLM", **changes: Any) -> tuple[Any, Path]:
    model = awake(getattr(tf, kind)(tf.RobertaConfig(**{**SHAPE, **changes})))
    return model, saved(model, folder)


def longformer(folder: Path, kind: str = "LongformerForMaskedLM", **changes: Any) -> tuple[Any, Path]:
    config = tf.LongformerConfig(**{**SHAPE, "attention_window": WINDOWS, **changes})
    model = awake(getattr(tf, kind)(config))
    return model, saved(model, folder)


def given(side: str, length: int = 23, pad: int = PAD) -> tuple[Tensor, Tensor]:
    """Tokens and a mask. Their positions are counted by ids that are not padding, so that is what stands in padding."""
    tokens = some_tokens(length=length)
    tokens = tokens.where(tokens != pad, pad + 1)
    mask = padding(side, length=length) if side != "none" else torch.ones_like(tokens, dtype=torch.bool)
    return tokens.where(mask, pad), mask


def some_global(mask: Tensor) -> Tensor:
    """Marks at two tokens of one row, three of another, none of the last, and at padding."""
    marks = torch.zeros_like(mask, dtype=torch.long)
    real = [row.nonzero()[:, 0] for row in mask]
    marks[0, real[0][[0, -1]]] = 1
    marks[1, real[1][[1, 2, 9]]] = 1
    return marks + (~mask).long()


@pytest.mark.parametrize("side", SIDES)
def test_roberta(tmp_path: Path, side: str) -> None:
    theirs, folder = roberta(tmp_path / "theirs")
    tokens, mask = given(side)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long()).logits
        out = hub.load(folder)(tokens, mask=mask)
    assert expected.std() > 0.5
    torch.testing.assert_close(out.logits[mask], expected[mask], **CLOSE)


def test_bare_roberta(tmp_path: Path) -> None:
    theirs, folder = roberta(tmp_path / "theirs", "RobertaModel")
    tokens, _ = given("none")
    with torch.no_grad():
        out, expected = hub.load(folder)(tokens), theirs(tokens)
    assert out.logits is None
    torch.testing.assert_close(out.hidden, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(out.pooled, expected.pooler_output, **CLOSE)


@pytest.mark.parametrize("windows", [WINDOWS, 6])
@pytest.mark.parametrize("side", SIDES)
def test_longformer_with_global_tokens(tmp_path: Path, side: str, windows: Any) -> None:
    theirs, folder = longformer(tmp_path / "theirs", attention_window=windows)
    tokens, mask = given(side)
    marks = some_global(mask)
    with torch.no_grad():
        told = {"attention_mask": mask.long(), "global_attention_mask": marks * mask}
        expected = theirs(tokens, **told, output_hidden_states=True)
        out = hub.load(folder)(tokens, mask=mask, marks={"global": marks})
        alone = hub.load(folder)(tokens, mask=mask).logits
    assert expected.logits.std() > 0.5
    assert (alone - out.logits)[mask].abs().max() > 0.1
    torch.testing.assert_close(out.logits[mask], expected.logits[mask], **CLOSE)
    torch.testing.assert_close(out.hidden[mask], expected.hidden_states[-1][mask], **CLOSE)


def test_longformer_without_global_tokens(tmp_path: Path) -> None:
    theirs, folder = longformer(tmp_path / "theirs")
    tokens, mask = given("right")
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long()).logits
        torch.testing.assert_close(hub.load(folder)(tokens, mask=mask).logits[mask], expected[mask], **CLOSE)


def test_bare_longformer(tmp_path: Path) -> None:
    theirs, folder = longformer(tmp_path / "theirs", "LongformerModel")
    tokens, mask = given("none")
    marks = some_global(mask)
    with torch.no_grad():
        out, expected = hub.load(folder)(tokens, marks={"global": marks}), theirs(tokens, global_attention_mask=marks)
    torch.testing.assert_close(out.hidden, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(out.pooled, expected.pooler_output, **CLOSE)


@pytest.mark.parametrize("pad", [0, 5])
def test_positions_begin_behind_that_of_padding(tmp_path: Path, pad: int) -> None:
    theirs, folder = longformer(tmp_path / "theirs", pad_token_id=pad)
    ours = hub.load(folder)
    assert ours.spec.max_length == 40 - pad - 1
    tokens, mask = given("left", pad=pad)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long()).logits
        torch.testing.assert_close(ours(tokens, mask=mask).logits[mask], expected[mask], **CLOSE)


@pytest.mark.parametrize("make_theirs", [roberta, longformer])
@pytest.mark.parametrize("pad", [PAD, 3])
def test_round_trip(tmp_path: Path, make_theirs: Any, pad: int) -> None:
    """Every bit but those of rows that no position reads: they come back as zeros, so they are zeros to begin with."""
    theirs, _ = make_theirs(tmp_path / "first", pad_token_id=pad)
    table = dict(theirs.named_parameters())
    (name,) = (name for name in table if name.endswith("position_embeddings.weight"))
    with torch.no_grad():
        table[name][: pad + 1] = 0
    folder = saved(theirs, tmp_path / "theirs")
    again = round_trip(folder, tmp_path)
    tokens, mask = given("right", pad=pad)
    with torch.no_grad():
        old, new = (model(tokens, attention_mask=mask.long())[0] for model in (theirs, again))
    assert torch.equal(old, new)


def test_a_masked_lm_that_was_saved_with_its_pooler(tmp_path: Path) -> None:
    theirs, folder = roberta(tmp_path / "theirs")
    dense = {"weight": torch.randn(32, 32), "bias": torch.randn(32)}
    rewrite(folder, lambda tensors: tensors.update({f"roberta.pooler.dense.{leaf}": t for leaf, t in dense.items()}))
    ours = hub.load(folder)
    assert ours.spec.pooler == Pooler(classes=None)
    tokens, _ = given("none")
    with torch.no_grad():
        out = ours(tokens)
        torch.testing.assert_close(out.logits, theirs(tokens).logits, **CLOSE)
        pooled = torch.nn.functional.linear(out.hidden[:, 0], dense["weight"], dense["bias"]).tanh()
    torch.testing.assert_close(out.pooled, pooled, **CLOSE)


def test_a_member_is_published_with_global_projections_and_room_for_padding(tmp_path: Path) -> None:
    model = make("longformer", vocab=53, dim=32, depth=2, heads=4, hidden=40, length=30, window=(4, 8)).build()
    hub.export(model, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors["longformer.embeddings.position_embeddings.weight"].shape == (32, 32)
    theirs = tf.LongformerForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert theirs.config.attention_window == [4, 8]
    tokens, mask = given("right")
    marks = some_global(mask)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long(), global_attention_mask=marks * mask).logits
        found = model.eval()(tokens, mask=mask, marks={"global": marks}).logits
    torch.testing.assert_close(found[mask], expected[mask], **CLOSE)


def test_defaults_are_the_members() -> None:
    published = {"attention_window": [512] * 12, "max_position_embeddings": 4098, "type_vocab_size": 1}
    published |= {"vocab_size": 50_265, "layer_norm_eps": 1e-5, "attention_mode": "longformer"}
    config = {**tf.LongformerConfig(**published).to_dict(), "architectures": ["LongformerForMaskedLM"]}
    assert hub.spec_from_config(config) == make("longformer")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention_window": [4, 3, 6]}, "attention_window is .4, 3, 6., and can only be an even number"),
        ({"attention_window": [4, 2]}, "tells 2 windows, and num_hidden_layers is 3"),
        ({"pad_token_id": -1}, "pad_token_id is -1, and can only be a whole number from 0 on"),
        ({"attention_dilation": [1, 1, 2]}, "attention_dilation is unknown here"),
    ],
)
def test_what_cannot_be_mapped_is_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    _, folder = longformer(tmp_path / "theirs")
    configure(folder, **changes)
    with pytest.raises(CheckpointError, match=told):
        hub.load(folder)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (LongformerAttention(4, Window(4) & Window(3)), "pattern"),
        (LongformerAttention(4, Window(1)), "would be read as"),
    ],
)
def test_what_their_config_cannot_say_is_refused(layer: LongformerAttention, told: str) -> None:
    spec = make("longformer", vocab=53, dim=32, depth=1, heads=4, length=30, window=8)
    (block,) = spec.blocks
    spec = spec.replace(blocks=(block.replace(sublayers=(layer, block.sublayers[1])),))
    with pytest.raises(ConfigError, match=told):
        hub.config_from_spec(spec)
