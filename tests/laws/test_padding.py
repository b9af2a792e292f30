"""A row alone gives what it gives in a padded batch, wherever the padding stands."""

import pytest
import torch
from subjects import DECODERS, ENCODERS, SPECS, Stream, build, tokens
from torch import Tensor

from formers import EncoderDecoder

ROWS = [11, 1, 17, 8]


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    inputs = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        inputs[i, place], mask[i, place] = row, True
    return inputs, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_a_row_alone_equals_the_row_in_a_batch(name: str, side: str) -> None:
    stream = Stream(build(SPECS[name]), len(ROWS))
    rows = [tokens(1, n, seed=n)[0] for n in ROWS]
    inputs, mask = padded(rows, side)
    together = stream.whole(inputs, mask)
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i][mask[i]], stream.whole(row[None], rows=slice(i, i + 1))[0])


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_what_stands_in_the_padding_does_not_matter(name: str) -> None:
    stream = Stream(build(SPECS[name]), len(ROWS))
    inputs, mask = padded([tokens(1, n, seed=n)[0] for n in ROWS], "right")
    other = torch.where(mask, inputs, 39)
    torch.testing.assert_close(stream.whole(inputs, mask)[mask], stream.whole(other, mask)[mask], rtol=0, atol=0)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_a_full_mask_is_no_mask(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, 9)
    torch.testing.assert_close(stream.whole(inputs, torch.ones_like(inputs, dtype=torch.bool)), stream.whole(inputs))


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_a_row_of_padding_alone_stays_finite(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, 9)
    mask = torch.ones_like(inputs, dtype=torch.bool)
    mask[1] = False
    logits = stream.whole(inputs, mask)
    assert logits.isfinite().all()
    logits[mask].sum().backward()
    assert all(p.grad.isfinite().all() for p in stream.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [n for n in DECODERS if isinstance(SPECS[n], EncoderDecoder)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_the_source_does_not_matter(name: str, side: str) -> None:
    model, target = build(SPECS[name]), tokens(4, 6)
    rows = [tokens(1, n, seed=n)[0] for n in ROWS]
    source, mask = padded(rows, side)
    together = model(source, target, source_mask=mask).logits
    state = model.start(source, mask)
    stepped = model.step(target, state, logits_at=slice(None)).logits
    torch.testing.assert_close(stepped, together)
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i : i + 1], model(row[None], target[i : i + 1]).logits)
