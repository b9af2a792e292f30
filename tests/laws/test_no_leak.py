"""No decoder's output depends on a later token."""

import pytest
import torch
from subjects import DECODERS, SORTED, SPECS, Stream, build, tokens


@pytest.mark.parametrize("name", DECODERS)
def test_the_future_has_no_gradient(name: str) -> None:
    stream = Stream(build(SPECS[name]), 1)
    seen = {}
    stream.embedding.register_forward_hook(lambda m, i, out: seen.setdefault("x", out.requires_grad_()))
    logits = stream.whole(tokens(1, 16))
    (gradient,) = torch.autograd.grad(logits[:, 9].sum(), seen["x"])
    assert not gradient[:, 10:].any()
    assert gradient[:, 9].any()
    assert gradient[:, :9].any()


@pytest.mark.parametrize("name", DECODERS)
def test_a_changed_future_changes_no_past(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 1), tokens(1, 16)
    other = inputs.clone()
    other[:, 10:] = (other[:, 10:] + 7) % 40
    # Sorted among others, the same numbers are summed in another order, and round otherwise.
    room = 1e-13 if name in SORTED else 0
    torch.testing.assert_close(stream.whole(inputs)[:, :10], stream.whole(other)[:, :10], rtol=0, atol=room)
