"""Routing and time: what later tokens change and what they do not, decoding, and padded rows."""

import pytest
import torch
from routed import ALIKE, EVERY_FORM, FORMS, PADDED, VOCAB, M, T, layer, model, whole

from formers.attention.routing import Routing
from formers.call import Call
from formers.places import Places

pytestmark = pytest.mark.usefixtures("float64")


def test_published_clusters_leak_and_strict_ones_do_not():
    x = torch.randn(1, T, M)
    later = x.clone()
    later[:, 25:] = torch.randn(1, T - 25, M)
    changed = {}
    for form, (spec, fields) in FORMS.items():
        built = layer(spec, **fields).eval()
        moved = (built(x, whole()).y - built(later, whole()).y)[:, :25]
        changed[form] = int((moved.abs().amax(-1) > 1e-9).sum())
    assert changed.pop("strict") == 0
    assert min(changed.values()) > 5, "the published selection is expected to leak: is it still the published one?"


def test_strict_outputs_have_no_gradient_by_later_inputs():
    built = layer(Routing(4, 6), **ALIKE)
    x = torch.randn(1, T, M, requires_grad=True)
    for t in (0, 11, 30):
        (slope,) = torch.autograd.grad(built(x, whole()).y[0, t].sum(), x)
        assert slope[0, t + 1 :].abs().max() == 0 and slope[0, t].abs().max() > 0


@pytest.mark.parametrize("cut", [[1] * T, [20] + [1] * 17, [5, 30, 2]])
@pytest.mark.parametrize("padded", [False, True])
def test_strict_decoding_equals_one_pass(cut, padded):
    built = model(Routing(4, 6), ALIKE, streaming=True)
    tokens = torch.randint(VOCAB, (4, T))
    mask = torch.tensor(PADDED, dtype=torch.bool) if padded else None
    full = built(tokens, mask=mask).logits
    state, parts, start = None, [], 0
    for length in cut:
        here = slice(start, start + length)
        out = built(tokens[:, here], state, mask=None if mask is None else mask[:, here])
        state, start = out.state, start + length
        parts.append(out.logits)
    real = torch.ones(4, T, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(torch.cat(parts, 1)[real], full[real])


@pytest.mark.parametrize("form", ["balanced", "balanced apart", "balanced by length"])
def test_a_step_of_a_balanced_decoder_is_a_pass_over_the_tokens_so_far(form):
    spec, fields = FORMS[form]
    built = layer(spec, **fields).eval()
    x = torch.randn(2, T, M)
    before = built(x[:, :30], Call(Places.run(0, 30)))
    step = built(x[:, 30:33], Call(Places.run(30, 3)), before.state)
    torch.testing.assert_close(step.y, built(x[:, :33], whole(33)).y[:, 30:])


@EVERY_FORM
def test_padded_rows_are_rows_alone(form):
    built = model(*FORMS[form])
    tokens, mask = torch.randint(VOCAB, (4, T)), torch.tensor(PADDED, dtype=torch.bool)
    together = built(tokens, mask=mask).logits
    for row, real, logits in zip(tokens, mask, together, strict=True):
        torch.testing.assert_close(logits[real], built(row[real][None]).logits[0])
