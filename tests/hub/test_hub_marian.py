"""Marian: logits of transformers' model, greedy translations, and back again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import CLOSE, marian, padding, rewrite, round_trip, some_tokens
from published import transformers as tf

from formers import hub
from formers.decode import GREEDY, generate
from formers.hub.constant import sinusoids

SOURCE, TARGET = some_tokens(length=9, seed=2), some_tokens(seed=3)


@pytest.mark.parametrize(
    "changes",
    [{}, {"scale_embedding": False, "activation_function": "relu"}, {"encoder_attention_heads": 8, "d_model": 48}],
)
def test_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs, folder = marian(tmp_path / "theirs", **changes)
    with torch.no_grad():
        expected = theirs(SOURCE, decoder_input_ids=TARGET).logits
        out = hub.load(folder)(SOURCE, TARGET)
    assert expected.std() > 0.5
    torch.testing.assert_close(out.logits, expected, **CLOSE)


def test_logits_beside_padding(tmp_path: Path) -> None:
    theirs, folder = marian(tmp_path / "theirs")
    source_mask, mask = padding("right", length=9), padding("right")
    with torch.no_grad():
        expected = theirs(
            SOURCE,
            attention_mask=source_mask.long(),
            decoder_input_ids=TARGET,
            decoder_attention_mask=mask.long(),
        ).logits
        out = hub.load(folder)(SOURCE, TARGET, source_mask=source_mask, mask=mask)
    torch.testing.assert_close(out.logits[mask], expected[mask], **CLOSE)


def test_cached_decoding(tmp_path: Path) -> None:
    model = hub.load(marian(tmp_path / "theirs")[1])
    mask = padding("right", length=9)
    with torch.no_grad():
        whole = model(SOURCE, TARGET, source_mask=mask).logits
        state = model.start(SOURCE, mask)
        for t in range(TARGET.shape[1]):
            out = model.step(TARGET[:, t : t + 1], state)
            state = out.state
            torch.testing.assert_close(out.logits[:, 0], whole[:, t], **CLOSE)


def test_greedy_translation(tmp_path: Path) -> None:
    theirs, folder = marian(tmp_path / "theirs")
    mask = padding("right", length=9)
    expected = theirs.generate(SOURCE, attention_mask=mask.long(), num_beams=1, do_sample=False, max_new_tokens=8)
    sources = [row[real].tolist() for row, real in zip(SOURCE, mask, strict=True)]
    ours = generate(hub.load(folder), sources, max_new=8, sampling=GREEDY, stop=0, start=52)
    for row, found in zip(expected.tolist(), ours, strict=True):
        written = row[1:]  # behind the start
        assert found.tokens[:7] == written[: len(found.tokens)][:7]  # the 8th is forced to be the end there


def test_round_trip(tmp_path: Path) -> None:
    theirs, folder = marian(tmp_path / "theirs")
    again = round_trip(folder, tmp_path)
    with torch.no_grad():
        expected = theirs(SOURCE, decoder_input_ids=TARGET).logits
        assert torch.equal(again(SOURCE, decoder_input_ids=TARGET).logits, expected)
    assert again.config.decoder_start_token_id == 52


def test_positions_and_second_copies_may_be_in_the_file(tmp_path: Path) -> None:
    theirs, folder = marian(tmp_path / "theirs")

    def add(tensors: dict[str, torch.Tensor]) -> None:
        for side in ("encoder", "decoder"):
            tensors[f"model.{side}.embed_positions.weight"] = (
                theirs.model.encoder.embed_positions.weight.detach().clone()
            )
            tensors[f"model.{side}.embed_tokens.weight"] = tensors["model.shared.weight"].clone()

    rewrite(folder, add)
    with torch.no_grad():
        expected = theirs(SOURCE, decoder_input_ids=TARGET).logits
        torch.testing.assert_close(hub.load(folder)(SOURCE, TARGET).logits, expected, **CLOSE)


@pytest.mark.parametrize("shape", [(24, 32), (600, 512), (5, 7)])
def test_sinusoids_are_the_published_ones_bit_for_bit(shape: tuple[int, int]) -> None:
    table = tf.models.marian.modeling_marian.MarianSinusoidalPositionalEmbedding(*shape)
    assert torch.equal(sinusoids(*shape), table.create_weight())
