"""A decoder whose stream begins with the encoder's output knows nothing of padding, and decodes step by step."""

import pytest
import torch
from sketch_terraformer import SketchAfterEncoder, SketchMultConv
from torch import Tensor, nn
from torch.nn import functional as F

from formers import (
    GLU,
    MLP,
    Attention,
    Block,
    ConfigError,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Rotary,
    Sinusoidal,
    stack,
)
from formers.places import Places
from formers.spec import Site
from formers.state import select


def terraformer() -> nn.Module:
    """Two attentions in each block of the decoder, as in the paper; one of them with sparse projections."""
    sublayers = (Attention(2, position=Rotary()), Attention(2, projection=SketchMultConv(4)), GLU(8))
    source = Encoder("source", 11, 8, stack(Block((Attention(2), MLP(8))), times=2), Embedding(Sinusoidal()))
    blocks = (SketchAfterEncoder(stack(Block(sublayers), times=2)),)
    target = Decoder("target", 11, 8, blocks, Embedding(Sinusoidal()))
    model = EncoderDecoder("terraformer", source, target).build(streaming=True)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Sources of 3, 6 and 1 words, padded to 6: on the right, not at all, and around."""
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]]).bool()
    return torch.randint(11, (3, 6)), mask, torch.randint(11, (3, 7))


def test_logits_do_not_depend_on_the_padding_of_the_source() -> None:
    model, (source, mask, target) = terraformer(), ragged()
    together = model(source, target, source_mask=mask).logits
    for row in range(3):
        alone = model(source[row : row + 1, mask[row]], target[row : row + 1]).logits
        torch.testing.assert_close(together[row], alone[0])
    wider = F.pad(source, (2, 9), value=5), F.pad(mask, (2, 9))
    torch.testing.assert_close(model(wider[0], target, source_mask=wider[1]).logits, together)


def test_the_target_sees_all_of_the_source_and_none_of_its_own_future() -> None:
    model, (source, _, target) = terraformer(), ragged()
    logits = model(source, target).logits
    for place in range(6):
        other = source.clone()
        other[:, place] = (other[:, place] + 1) % 11
        assert (model(other, target).logits - logits).abs().amax((0, 2)).min() > 0
    target[:, 4] = (target[:, 4] + 1) % 11
    changed = (model(source, target).logits - logits).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 1, 3]])
def test_steps_equal_one_pass(sizes: list[int]) -> None:
    model, (source, mask, target) = terraformer(), ragged()
    whole, state, parts = model(source, target, source_mask=mask).logits, model.start(source, mask), []
    for part in target.split(sizes, 1):
        out = model.step(part, state, logits_at=slice(None))
        state = out.state
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    swapped = select(state, torch.tensor([2, 0]))
    ahead = model.step(target[:, :1], state).logits
    torch.testing.assert_close(model.step(target[[2, 0], :1], swapped).logits, ahead[[2, 0]])


def test_sparse_projections_skip_padding_inside_a_row() -> None:
    layer = SketchMultConv(4).build(Site(8, heads=2, kv_heads=2, head_dim=4))
    x, real = torch.randn(1, 9, 8), torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0]]).bool()
    dense, tail = layer.prepare(x[:, real[0]], Places.run(0, 5), None)
    first, middle = layer.prepare(x[:, :4], Places(torch.zeros(1, 4).long(), real[:, :4]), None)
    rest, last = layer.prepare(x[:, 4:], Places(torch.zeros(1, 5).long(), real[:, 4:]), middle)
    torch.testing.assert_close(torch.cat([first, rest], 1)[:, real[0]], dense)
    torch.testing.assert_close(last, tail)
    torch.testing.assert_close(layer.queries(dense)[:, :, 2], layer.queries(dense[:, 2:3])[:, :, 0])


def test_needs_an_encoder() -> None:
    with pytest.raises(ConfigError, match="no encoder for the stream to begin with"):
        Decoder("target", 11, 8, (SketchAfterEncoder((Block((MLP(8),)),)),)).build()
