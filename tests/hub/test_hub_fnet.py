"""FNet: logits, hidden states and poolers of transformers' models, padding as they see it, and back again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import BERT_SHAPE, CLOSE, awake, configure, padding, round_trip, saved, some_tokens
from published import transformers as tf
from torch import Tensor

from formers import CheckpointError, ConfigError, Pooler, hub, make

SHAPE = {name: value for name, value in BERT_SHAPE.items() if name != "num_attention_heads"}
SEGMENTS = (some_tokens(seed=5) % 4).sort(1).values
PAD = 3


def fnet(folder: Path, kind: str = "FNetForPreTraining", **changes: Any) -> tuple[Any, Path]:
    model = awake(getattr(tf, kind)(tf.FNetConfig(**{**SHAPE, "layer_norm_eps": 1e-2, **changes})))
    return model, saved(model, folder)


@pytest.mark.parametrize("act", ["gelu_new", "relu"])
def test_fnet_for_pre_training(tmp_path: Path, act: str) -> None:
    theirs, folder = fnet(tmp_path / "theirs", hidden_act=act)
    with torch.no_grad():
        expected = theirs(some_tokens(), token_type_ids=SEGMENTS)
        out = hub.load(folder)(some_tokens(), marks={"segment": SEGMENTS})
    assert expected.prediction_logits.std() > 0.5
    torch.testing.assert_close(out.logits, expected.prediction_logits, **CLOSE)
    torch.testing.assert_close(out.pooled, expected.seq_relationship_logits, **CLOSE)


@pytest.mark.parametrize("length", [1, 2, 7, 24])
def test_bare_fnet_at_any_length(tmp_path: Path, length: int) -> None:
    theirs, folder = fnet(tmp_path / "theirs", "FNetModel")
    tokens = some_tokens(length=length)
    with torch.no_grad():
        out, expected = hub.load(folder).double()(tokens), theirs.double()(tokens)
    assert out.logits is None
    exact = {"atol": 1e-9, "rtol": 0.0}
    torch.testing.assert_close(out.hidden, expected.last_hidden_state, **exact)
    torch.testing.assert_close(out.pooled, expected.pooler_output, **exact)


def test_gradients_are_theirs(tmp_path: Path) -> None:
    theirs, folder = fnet(tmp_path / "theirs", "FNetForMaskedLM")
    ours = hub.load(folder)
    theirs(some_tokens()).logits.logsumexp(-1).sum().backward()
    ours(some_tokens()).logits.logsumexp(-1).sum().backward()
    wanted = theirs.fnet.embeddings.projection.weight.grad
    torch.testing.assert_close(ours.embedding.proj.weight.grad, wanted, atol=1e-3, rtol=1e-3)


def padded() -> tuple[Tensor, Tensor]:
    mask = padding("right")
    return some_tokens().where(mask, PAD), mask


def test_padding_is_a_token_to_them_and_not_with_a_mask(tmp_path: Path) -> None:
    theirs, folder = fnet(tmp_path / "theirs", "FNetModel")
    ours, (tokens, mask) = hub.load(folder), padded()
    assert not mask.all()
    with torch.no_grad():
        together = theirs(tokens).last_hidden_state
        torch.testing.assert_close(ours(tokens).hidden, together, **CLOSE)
        masked = ours(tokens, mask=mask).hidden
        for row, real, hidden, seen in zip(tokens, mask, masked, together, strict=True):
            alone = theirs(row[real][None]).last_hidden_state[0]
            torch.testing.assert_close(hidden[real], alone, **CLOSE)
            if not real.all():
                assert (seen[real] - alone).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["FNetForPreTraining", "FNetForMaskedLM", "FNetForNextSentencePrediction"])
def test_fnet_round_trip(tmp_path: Path, kind: str) -> None:
    theirs, folder = fnet(tmp_path / "theirs", kind)
    again = round_trip(folder, tmp_path)
    with torch.no_grad():
        for old, new in zip(theirs(some_tokens()).to_tuple(), again(some_tokens()).to_tuple(), strict=True):
            assert torch.equal(old, new)


def test_a_member_is_published(tmp_path: Path) -> None:
    model = make("fnet", vocab=53, dim=32, depth=2, hidden=40, length=24).build().eval()
    hub.export(model, tmp_path / "out")
    theirs = tf.FNetForMaskedLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(some_tokens()).logits, model(some_tokens()).logits, **CLOSE)


def test_defaults_are_the_members() -> None:
    config = {**tf.FNetConfig().to_dict(), "architectures": ["FNetForMaskedLM"]}
    assert hub.spec_from_config(config) == make("fnet").replace(pooler=Pooler(classes=None))


def test_a_hybrid_has_no_class_there() -> None:
    with pytest.raises(ConfigError, match="cannot say it"):
        hub.config_from_spec(make("fnet_hybrid"))


def test_a_table_that_is_cut_is_refused(tmp_path: Path) -> None:
    _, folder = fnet(tmp_path / "theirs")
    configure(folder, use_tpu_fourier_optimizations=True)
    with pytest.raises(CheckpointError, match="its table of one length is cut"):
        hub.load(folder)
