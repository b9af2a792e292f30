"""BERT and RoFormer: logits, hidden states and poolers of transformers' models, and back again."""

from pathlib import Path

import pytest
import torch
from published import CLOSE, bert, padding, positions, rewrite, roformer, round_trip, some_tokens
from published import transformers as tf

from formers import Pooler, hub, make

SEGMENTS = (some_tokens(seed=5) % 2).sort(1).values


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_bert_for_pre_training(tmp_path: Path, side: str, act: str) -> None:
    theirs, folder = bert(tmp_path / "theirs", hidden_act=act, layer_norm_eps=1e-2)
    mask = padding(side) if side != "none" else torch.ones_like(SEGMENTS, dtype=torch.bool)
    given = {"attention_mask": mask.long(), "token_type_ids": SEGMENTS, "position_ids": positions(mask)}
    with torch.no_grad():
        expected = theirs(some_tokens(), **given)
        out = hub.load(folder)(some_tokens(), mask=mask, marks={"segment": SEGMENTS})
    assert expected.prediction_logits.std() > 0.5
    torch.testing.assert_close(out.logits[mask], expected.prediction_logits[mask], **CLOSE)
    torch.testing.assert_close(out.pooled, expected.seq_relationship_logits, **CLOSE)


def test_bert_for_masked_lm(tmp_path: Path) -> None:
    theirs, folder = bert(tmp_path / "theirs", "BertForMaskedLM")
    ours = hub.load(folder)
    assert ours.spec.pooler is None
    with torch.no_grad():
        torch.testing.assert_close(ours(some_tokens()).logits, theirs(some_tokens()).logits, **CLOSE)


def test_masked_lm_that_was_saved_with_its_pooler(tmp_path: Path) -> None:
    whole, folder = bert(tmp_path / "theirs")

    def drop_classes(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["cls.seq_relationship.weight"], tensors["cls.seq_relationship.bias"]

    rewrite(folder, drop_classes)
    ours = hub.load(folder)
    assert ours.spec.pooler == Pooler(classes=None)
    with torch.no_grad():
        out, expected = ours(some_tokens()), whole(some_tokens()).prediction_logits
        torch.testing.assert_close(out.logits, expected, **CLOSE)
        torch.testing.assert_close(out.pooled, whole.bert(some_tokens()).pooler_output, **CLOSE)
    hub.export(ours, tmp_path / "out")
    with torch.no_grad():
        again = tf.BertForMaskedLM.from_pretrained(tmp_path / "out").eval()
        assert torch.equal(again(some_tokens()).logits, expected)


def test_bare_bert(tmp_path: Path) -> None:
    theirs, folder = bert(tmp_path / "theirs", "BertModel")
    ours = hub.load(folder)
    with torch.no_grad():
        out, expected = ours(some_tokens(), marks={"segment": SEGMENTS}), theirs(some_tokens(), token_type_ids=SEGMENTS)
    assert out.logits is None
    torch.testing.assert_close(out.hidden, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(out.pooled, expected.pooler_output, **CLOSE)


def test_names_of_the_first_release(tmp_path: Path) -> None:
    theirs, folder = bert(tmp_path / "theirs")

    def age(tensors: dict[str, torch.Tensor]) -> None:
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        tensors.clear()
        tensors |= old | {"bert.embeddings.position_ids": torch.arange(24)[None]}
        tensors |= {"cls.predictions.decoder.weight": old["bert.embeddings.word_embeddings.weight"].clone()}

    rewrite(folder, age)
    with torch.no_grad():
        torch.testing.assert_close(
            hub.load(folder)(some_tokens()).logits, theirs(some_tokens()).prediction_logits, **CLOSE
        )


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_roformer(tmp_path: Path, side: str) -> None:
    theirs, folder = roformer(tmp_path / "theirs", layer_norm_eps=1e-2)
    mask = padding(side) if side != "none" else torch.ones_like(SEGMENTS, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs(some_tokens(), attention_mask=mask.long(), token_type_ids=SEGMENTS).logits
        out = hub.load(folder)(some_tokens(), mask=mask, marks={"segment": SEGMENTS})
    assert expected.std() > 0.5
    torch.testing.assert_close(out.logits[mask], expected[mask], **CLOSE)


def test_bare_roformer(tmp_path: Path) -> None:
    theirs, folder = roformer(tmp_path / "theirs", "RoFormerModel")
    with torch.no_grad():
        torch.testing.assert_close(
            hub.load(folder)(some_tokens()).hidden, theirs(some_tokens()).last_hidden_state, **CLOSE
        )


@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction"])
def test_bert_round_trip(tmp_path: Path, kind: str) -> None:
    theirs, folder = bert(tmp_path / "theirs", kind)
    again = round_trip(folder, tmp_path)
    with torch.no_grad():
        for old, new in zip(theirs(some_tokens()).to_tuple(), again(some_tokens()).to_tuple(), strict=True):
            assert torch.equal(old, new)


def test_roformer_round_trip(tmp_path: Path) -> None:
    theirs, folder = roformer(tmp_path / "theirs", hidden_act="silu")
    again = round_trip(folder, tmp_path)
    with torch.no_grad():
        assert torch.equal(again(some_tokens()).logits, theirs(some_tokens()).logits)


def test_defaults_are_the_members() -> None:
    bert_config = {**tf.BertConfig().to_dict(), "architectures": ["BertForMaskedLM"]}
    assert hub.spec_from_config(bert_config) == make("bert")
    assert hub.spec_from_config(tf.RoFormerConfig().to_dict()) == make("roformer")
