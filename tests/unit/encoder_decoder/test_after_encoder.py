"""A decoder whose stream begins with the encoder's output knows nothing of padding, and decodes step by step."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import (
    GLU,
    MLP,
    Attention,
    Block,
    ConfigError,
    CrossAttention,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    LayerNorm,
    Parallel,
    PreNorm,
    Reversible,
    Rotary,
    Sinusoidal,
    SparseFF,
    stack,
)
from formers.attention import LSH, MultConv, SharedQK
from formers.call import Call, Encoded
from formers.encoder_decoder.after_encoder import AfterEncoder
from formers.linear import Linear
from formers.places import Places
from formers.position import SelfLast
from formers.recurrence import SRUBranch
from formers.spec import Site, from_json
from formers.state import select


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


BESIDE = Parallel((GLU(8), SRUBranch(2, 4)), norm=LayerNorm())
HASHED = Attention(2, projection=SharedQK(), position=SelfLast(), scale=1.0, select=LSH(4, 2, 4, strict=True))
WRITES = stack(Block((Attention(2, position=Rotary()), Attention(2, projection=MultConv(4)), BESIDE)), times=2)
READS = stack(Block((Attention(2), MLP(8))), times=2)
KINDS: dict[str, Any] = {
    "plain": (READS, LayerNorm(), (AfterEncoder(WRITES),)),
    "averaged": ((Reversible(READS, "mean"), Linear()), LayerNorm(), (AfterEncoder((Reversible(WRITES, "mean"),)),)),
    "two streams": (
        (Reversible(READS),), None,
        (AfterEncoder((Reversible(WRITES, "mean", streams="given"), Linear(), Reversible(WRITES[:1], "mean"))),),
    ),
    "one swap": (
        (Reversible(READS, last_swap=False),), None, (AfterEncoder((Reversible(WRITES, "mean", streams="given"),)),),
    ),
    "hashed": (READS, LayerNorm(), (AfterEncoder((Block((HASHED, MLP(8))), Block((HASHED, MLP(8))))),)),
}  # fmt: skip


def spec_of(kind: str) -> EncoderDecoder:
    reads, norm, writes = KINDS[kind]
    source = Encoder("source", 11, 8, reads, Embedding(Sinusoidal()), norm)
    return EncoderDecoder("terraformer", source, Decoder("target", 11, 8, writes, Embedding(Sinusoidal())))


@pytest.fixture(params=list(KINDS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    built = spec_of(request.param).build(streaming=True).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Sources of 3, 6 and 1 words, padded to 6: on the right, not at all, and around."""
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0]]).bool()
    return torch.randint(11, (3, 6)), mask, torch.randint(11, (3, 7))


def test_logits_do_not_depend_on_the_padding_of_the_source(model: nn.Module) -> None:
    source, mask, target = ragged()
    together = model(source, target, source_mask=mask).logits
    for row in range(3):
        alone = model(source[row : row + 1, mask[row]], target[row : row + 1]).logits
        torch.testing.assert_close(together[row], alone[0])
    wider = F.pad(source, (2, 9), value=5), F.pad(mask, (2, 9))
    torch.testing.assert_close(model(wider[0], target, source_mask=wider[1]).logits, together)


def test_the_target_sees_all_of_the_source_and_none_of_its_own_future(model: nn.Module) -> None:
    source, _, target = ragged()
    logits = model(source, target).logits
    for place in range(6):
        other = source.clone()
        other[:, place] = (other[:, place] + 1) % 11
        assert (model(other, target).logits - logits).abs().amax((0, 2)).min() > 0
    target[:, 4] = (target[:, 4] + 1) % 11
    changed = (model(source, target).logits - logits).abs().amax((0, 2)) > 1e-13
    assert changed.tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 1, 3]])
def test_steps_equal_one_pass(model: nn.Module, sizes: list[int]) -> None:
    source, mask, target = ragged()
    behind = torch.ones_like(target, dtype=torch.bool)
    behind[1, 2:5] = False
    whole = model(source, target, source_mask=mask, mask=behind).logits
    state, parts = model.start(source, mask), []
    for part, real in zip(target.split(sizes, 1), behind.split(sizes, 1), strict=True):
        out = model.step(part, state, mask=real, logits_at=slice(None))
        state = out.state
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1)[behind], whole[behind])
    swapped = select(state, torch.tensor([2, 0]))
    ahead = model.step(target[:, :1], state).logits
    torch.testing.assert_close(model.step(target[[2, 0], :1], swapped).logits, ahead[[2, 0]])


def test_gradients_reach_the_encoder_as_finite_differences_say(model: nn.Module) -> None:
    source, mask, target = ragged()
    weights, parameters = torch.randn(3, 7, 11), list(model.source.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def loss() -> Tensor:
        return (model(source, target, source_mask=mask, remember=False).logits.tanh() * weights).sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    used = [(g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None]
    step, sides = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * step)
            sides.append(loss())
    slope = torch.stack(used).sum()
    assert slope.abs() > 1e-3
    torch.testing.assert_close(slope, (sides[0] - sides[1]) / (2 * step), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_survives_json(kind: str) -> None:
    assert from_json(spec_of(kind).to_json()) == spec_of(kind)


@pytest.mark.parametrize("last_swap", [True, False])
def test_each_stream_of_the_encoder_goes_on_in_one_of_the_decoders(last_swap: bool) -> None:
    """Against the concatenation written out, with blocks that ordinary autograd runs."""
    blocks = stack(Block((Attention(1), MLP(4))), times=2)
    layer = AfterEncoder((Reversible(blocks, streams="given", last_swap=last_swap),))
    built = layer.build(Site(4, causal=True, encoder=True))
    x, hidden = torch.randn(1, 3, 4), torch.randn(1, 5, 8)
    out = built(x, Call(Places.run(0, 3), Encoded(hidden, Places.run(0, 5)), remember=False)).y
    x1, x2 = (torch.cat([stream, x], 1) for stream in hidden.chunk(2, -1))
    at = Call(Places.run(0, 8))
    for block in built.blocks[0].blocks:
        (first, last), (attention, feed_forward) = block.residual.norms, block.sublayers
        x1, x2 = x2, x1 + attention(first(x2), at).y
        x1 = x1 + feed_forward(last(x2), at).y
        x1, x2 = (x2, x1) if last_swap else (x1, x2)
    torch.testing.assert_close(out, torch.cat([x1, x2], -1)[:, 5:])


def test_sparse_projections_skip_padding_inside_a_row() -> None:
    layer: Any = MultConv(4).build(Site(8, heads=2, kv_heads=2, head_dim=4))
    x, real = torch.randn(1, 9, 8), torch.tensor([[0, 1, 1, 0, 0, 1, 1, 1, 0]]).bool()
    dense, tail = layer.prepare(x[:, real[0]], Places.run(0, 5), None)
    first, middle = layer.prepare(x[:, :4], Places(torch.zeros(1, 4).long(), real[:, :4]), None)
    rest, last = layer.prepare(x[:, 4:], Places(torch.zeros(1, 5).long(), real[:, 4:]), middle)
    torch.testing.assert_close(torch.cat([first, rest], 1)[:, real[0]], dense)
    torch.testing.assert_close(last, tail)


BLOCK = Block((MLP(8),))
REFUSED = [
    (Decoder("target", 11, 8, (AfterEncoder((BLOCK,)),)), "no encoder for the stream to begin with"),
    ((READS, (AfterEncoder(()),)), "a stream without blocks"),
    (((Reversible(READS),), (AfterEncoder(WRITES),)), r'8 wide and attends to an encoder 16 wide(?s:.*)merge="mean"'),
    ((READS, (AfterEncoder((Reversible(WRITES, "mean", "given"),)),)), "two streams of an encoder, 16 wide"),
    ((READS, (AfterEncoder((Block((CrossAttention(2),)),)),)), "there is no encoder to attend to"),
    ((READS, (AfterEncoder((Reversible(WRITES), BLOCK)),)), "16 numbers for each token, and the block behind it reads 8"),
    ((READS, (Block((Reversible(WRITES, "mean", "given"),)),)), "reads 16 numbers for each token, and this stream has 8"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "told"), REFUSED)
def test_what_cannot_be_joined_is_refused(given: Any, told: str) -> None:
    if isinstance(given, tuple):
        reads, writes = given
        source = Encoder("source", 11, 8, reads, norm=None)
        given = EncoderDecoder("joined", source, Decoder("target", 11, 8, writes, Embedding(Sinusoidal())))
    with pytest.raises(ConfigError, match=told):
        given.build()


def test_a_norm_of_each_branch_reads_the_stream_itself() -> None:
    """FF(norm_a(x)) + SRU(norm_b(x)), and nothing normed twice."""
    block: Any = Block((BESIDE,), PreNorm()).build(Site(8, causal=True))
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    assert isinstance(block.residual.norms[0], nn.Identity)
    x, call, beside = torch.randn(2, 5, 8), Call(Places.run(0, 5)), block.sublayers[0]
    wanted = x
    for norm, layer in zip(beside.norms, beside.layers, strict=True):
        wanted = wanted + layer(norm(x), call).y
    torch.testing.assert_close(block(x, call).y, wanted)


def test_branches_that_choose_are_rebuilt_with_their_choices() -> None:
    """Gradients of a reversible stack, in chunks and with hard masks, are those of ordinary autograd."""
    beside = Parallel((SparseFF(16, block=4, rank=2, hard=1.0, chunk=3), SRUBranch(1, 4)), norm=LayerNorm())
    layer: Any = Reversible(stack(Block((Attention(2), beside)), times=2), "mean").build(Site(8, causal=True)).train()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x, call = torch.randn(2, 7, 8, requires_grad=True), Call(Places.run(0, 7), seed=5, remember=False)
    x1 = x2 = x
    for block in layer.blocks:
        for norm, sublayer in zip(block.residual.norms, block.sublayers, strict=True):
            x1, x2 = x2, x1 + sublayer(norm(x2), call).y
    out, plain, wanted = layer(x, call).y, (x1 + x2) / 2, [x, *layer.parameters()]
    torch.testing.assert_close(out, plain)
    weight = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), wanted) for y in (out, plain))
    torch.testing.assert_close(ours, theirs)
    assert all(gradient.any() for gradient in ours)
