"""Linformer against its formula, written out densely, and against the package `linformer`."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import (
    MLP,
    Attention,
    Block,
    ConfigError,
    ConvolvedSlots,
    Decoder,
    Dense,
    Encoder,
    EncoderDecoder,
    FormersError,
    Layerwise,
    LinearSlots,
    Linformer,
    LinformerCross,
    PooledSlots,
    stack,
)
from formers.attention.low_rank.compress import Compression
from formers.call import Call
from formers.places import Places
from formers.spec import Site
from formers.tokens import place

DIM, HEADS, LENGTH, SLOTS = 16, 4, 24, 6
SITE = Site(dim=DIM)
KINDS: dict[str, Compression] = {
    "none": LinearSlots("none"),
    "headwise": LinearSlots("headwise"),
    "keys_values": LinearSlots("keys_values"),
    "mean": PooledSlots("mean"),
    "max": PooledSlots("max"),
    "convolution": ConvolvedSlots("headwise"),
    "convolution, none": ConvolvedSlots("none"),
    "convolution, keys_values": ConvolvedSlots("keys_values"),
}


pytestmark = pytest.mark.usefixtures("float64")


def built(compress: Compression, **fields: Any) -> Any:
    """A layer with noise on all that it learns, biases too."""
    torch.manual_seed(0)
    layer = Linformer(HEADS, LENGTH, SLOTS, compress, **fields).build(SITE).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def run(layer: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    y: Tensor = layer(x, Call(place(torch.zeros(x.shape[:2], dtype=torch.int64), 0, mask, None))).y
    return y


def slots_of(layer: Any, heads: Tensor, which: int) -> Tensor:
    """What the paper makes of projected keys (which=0) or values (1), (H, N, D), one slot after another."""
    compressor, kind, length = layer.compressor, layer.spec.compress, heads.shape[1]
    if isinstance(kind, LinearSlots):
        matrices = compressor.weight.view(-1, SLOTS, LENGTH)[:, :, :length]
        own = {"none": lambda h: which * HEADS + h, "headwise": lambda h: which, "keys_values": lambda h: 0}[kind.share]
        return torch.stack([matrices[own(h)] @ heads[h] for h in range(HEADS)])
    width = LENGTH // SLOTS
    windows = [heads[:, start : start + width] for start in range(0, length, width)]
    if isinstance(kind, PooledSlots):
        return torch.stack([w.mean(1) if kind.by == "mean" else w.amax(1) for w in windows], 1)
    kernel = compressor.weight[min(which, len(compressor.weight) - 1), :, 0]
    return torch.stack([(kernel[:, : w.shape[1]] * w).sum(1) for w in windows], 1)


def dense(layer: Any, x: Tensor) -> Tensor:
    """Project, biases and all, then compress, then attend: one row (N, M) at a time."""
    projection = layer.projection
    q, k, v = (
        linear(x).view(len(x), HEADS, -1).transpose(0, 1)
        for linear in (projection.q_proj, projection.k_proj, projection.v_proj)
    )
    k, v = slots_of(layer, k, 0), slots_of(layer, v, 1)
    heads = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
    return projection.out_proj(heads.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 5, 12, LENGTH])
@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_formula(kind: str, length: int, bias: bool) -> None:
    layer, x = built(KINDS[kind], projection=Dense(bias)), torch.randn(2, length, DIM)
    torch.testing.assert_close(run(layer, x), torch.stack([dense(layer, row) for row in x]))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_anywhere(kind: str) -> None:
    layer, x = built(KINDS[kind]), torch.randn(4, 17, DIM)
    mask = torch.ones(4, 17, dtype=torch.bool)
    mask[0, :9], mask[1, 4:], mask[2, [3, 4, 11]], mask[3] = False, False, False, False
    y = run(layer, x, mask)
    for row, real, out in zip(x[:3], mask, y, strict=False):
        torch.testing.assert_close(out[real], dense(layer, row[real]))
    assert y.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_formulas(kind: str) -> None:
    layer, x = built(KINDS[kind]), torch.randn(1, 13, DIM, requires_grad=True)
    weights, learned = torch.randn(13, DIM), list(layer.parameters())
    ours = torch.autograd.grad((run(layer, x)[0] * weights).sum(), [x, *learned])
    theirs = torch.autograd.grad((dense(layer, x[0]) * weights).sum(), [x, *learned])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("share", ["none", "headwise", "keys_values"])
def test_as_many_slots_as_tokens_and_the_identity_are_full_attention(share: Any) -> None:
    layer = Linformer(HEADS, LENGTH, LENGTH, LinearSlots(share)).build(SITE)
    plain = Attention(HEADS).build(SITE)
    with torch.no_grad():
        layer.compressor.weight.copy_(torch.eye(LENGTH).repeat(len(layer.compressor.weight) // LENGTH, 1))
    plain.projection.load_state_dict(layer.projection.state_dict())
    x = torch.randn(2, LENGTH, DIM)
    torch.testing.assert_close(run(layer, x), plain(x, Call(Places.run(0, LENGTH))).y)


def test_how_many_numbers_each_way_of_sharing_learns() -> None:
    counts = {kind: sum(p.numel() for p in built(KINDS[kind]).compressor.parameters()) for kind in KINDS}
    one, width = SLOTS * LENGTH, LENGTH // SLOTS
    assert counts == {
        "none": 2 * HEADS * one, "headwise": 2 * one, "keys_values": one, "mean": 0, "max": 0,
        "convolution": 2 * width * DIM // HEADS, "convolution, none": 2 * width * DIM,
        "convolution, keys_values": width * DIM // HEADS,
    }  # fmt: skip


def test_convolutions_begin_as_means() -> None:
    torch.manual_seed(0)
    ours, means = (Linformer(HEADS, LENGTH, SLOTS, kind).build(SITE) for kind in (ConvolvedSlots(), PooledSlots()))
    means.projection.load_state_dict(ours.projection.state_dict())
    x = torch.randn(1, LENGTH, DIM)
    torch.testing.assert_close(run(ours, x), run(means, x))


def compressed_first(layer: Any, x: Tensor) -> Tensor:
    """As fairseq does it: slots of inputs (N, M) are projected, so that each has a bias once."""
    projection, e = layer.projection, layer.compressor.weight[:, : len(x)]
    given = (projection.q_proj, x), (projection.k_proj, e @ x), (projection.v_proj, e @ x)
    q, k, v = (linear(t).view(-1, HEADS, DIM // HEADS).transpose(0, 1) for linear, t in given)
    heads = (q @ k.mT * (DIM // HEADS) ** -0.5).softmax(-1) @ v
    return projection.out_proj(heads.transpose(0, 1).flatten(1))


def test_fairseqs_order_is_another_model_where_keys_have_biases() -> None:
    layer, x = built(LinearSlots("keys_values")), torch.randn(1, 9, DIM)
    assert (compressed_first(layer, x[0]) - run(layer, x)[0]).abs().max() > 0.01
    with torch.no_grad():
        layer.projection.k_proj.bias.zero_()
        layer.projection.v_proj.bias.zero_()
    torch.testing.assert_close(compressed_first(layer, x[0]), run(layer, x)[0])


@pytest.mark.parametrize("length", [LENGTH, 7])
def test_the_package(length: int) -> None:
    theirs = pytest.importorskip("linformer").LinformerSelfAttention(DIM, LENGTH, k=SLOTS, heads=HEADS)
    layer, x = built(LinearSlots("headwise"), projection=Dense(bias=False)), torch.randn(2, length, DIM)
    theirs.to_out = nn.Linear(DIM, DIM, bias=False)
    named = zip((theirs.to_q, theirs.to_k, theirs.to_v, theirs.to_out), layer.projection.children(), strict=True)
    with torch.no_grad():
        for there, here in named:
            there.weight.copy_(here.weight)
        for there, here in zip((theirs.proj_k, theirs.proj_v), layer.compressor.weight.split(SLOTS), strict=True):
            there.copy_(here.T)
    torch.testing.assert_close(run(layer, x), theirs(x))


def test_one_projection_for_all_layers_is_one() -> None:
    blocks = stack(Block((Linformer(HEADS, LENGTH, SLOTS, LinearSlots("keys_values")), MLP(8))), times=3)
    model = Encoder("mine", 40, DIM, (Layerwise(blocks),)).build()
    shared = [module.compressor.weight for module in model.modules() if hasattr(module, "compressor")]
    assert len(shared) == 3 and len({id(weight) for weight in shared}) == 1
    assert sum(p.numel() for p in model.parameters() if p.shape == (SLOTS, LENGTH)) == SLOTS * LENGTH
    model(torch.zeros(1, 5, dtype=torch.int64)).hidden.square().sum().backward()
    assert shared[0].grad.any()


def spec(layer: Any, kind: Any = Encoder) -> Any:
    return kind("mine", 40, DIM, (layer if isinstance(layer, Layerwise) else Block((layer, MLP(8))),))


BLOCK = Block((Linformer(HEADS, LENGTH, SLOTS, LinearSlots("keys_values")), MLP(8)))


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (Linformer(HEADS, 0), "a text of 0 tokens cannot be read"),
        (Linformer(HEADS, 24, 25), "24 positions cannot be compressed into 25 slots"),
        (Linformer(HEADS, 24, 0), "into 0 slots"),
        (Linformer(3, 24, 4), "dim 16 does not split into 3 heads"),
        (Linformer(HEADS, 24, 5, PooledSlots()), "24 positions do not split into 5 equal windows(.|\n)*length=25"),
        (Linformer(HEADS, 24, 5, ConvolvedSlots()), "24 positions do not split into 5 equal windows"),
        (LinformerCross(HEADS, 24, 5), "there is no encoder to attend to"),
        (Layerwise((Block((Attention(HEADS), MLP(8))),)), "no Linformer stands in these blocks"),
        (Layerwise(stack(Block((Linformer(HEADS, 24, 4), MLP(8))), times=2)), "one for keys and values too"),
        (
            Layerwise((BLOCK, BLOCK.replace(sublayers=(BLOCK.sublayers[0].replace(slots=3), MLP(8))))),
            "one matrix cannot be of 6 slots of 24 positions and 3 slots of 24 positions",
        ),
    ],
)
def test_what_cannot_be_built_is_told(layer: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        spec(layer).build()


@pytest.mark.parametrize("layer", [Linformer(HEADS, LENGTH, SLOTS), Layerwise((BLOCK,))], ids=["one", "layerwise"])
def test_decoders_refuse_it_with_the_reason(layer: Any) -> None:
    with pytest.raises(ConfigError, match=r"every slot .* is made of all tokens(.|\n)*fix: Attention\(heads=4\)"):
        spec(layer, Decoder).build()


def test_it_does_see_the_future() -> None:
    """Which is why a decoder refuses it: the first output moves with the last token."""
    layer, x = built(LinearSlots()), torch.randn(1, 9, DIM)
    changed = x.clone()
    changed[:, 8] += 1
    assert (run(layer, changed) - run(layer, x))[:, 0].abs().max() > 1e-3


def test_past_its_length() -> None:
    layer = built(LinearSlots())
    with pytest.raises(FormersError, match="has 24 positions and was given a token at position 24"):
        run(layer, torch.randn(1, 25, DIM))
    mask = torch.ones(1, 25, dtype=torch.bool)
    mask[0, 3] = False
    assert run(layer, torch.randn(1, 25, DIM), mask).isfinite().all()
    assert spec(Linformer(HEADS, LENGTH, SLOTS)).max_length == spec(Layerwise((BLOCK,))).max_length == LENGTH


def pair(**fields: Any) -> Any:
    source = Encoder("source", 40, DIM, (Block((Attention(HEADS), MLP(8))),))
    cross = LinformerCross(HEADS, LENGTH, SLOTS, **fields)
    return EncoderDecoder("pair", source, Decoder("target", 40, DIM, (Block((Attention(HEADS), cross, MLP(8))),)))


def test_a_source_past_its_length_is_told_as_such() -> None:
    with pytest.raises(FormersError, match="sources of 24 positions and this one has 25"):
        pair().build()(torch.zeros(1, 25, dtype=torch.int64), torch.zeros(1, 30, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["none", "headwise", "mean"])
def test_slots_of_a_source_are_kept_and_do_not_grow(kind: str) -> None:
    model = pair(compress=KINDS[kind]).build().eval()
    source, target = torch.randint(40, (2, 21)), torch.randint(40, (2, 30))
    state, sizes = model.start(source), set()
    for t in range(30):
        state = model.step(target[:, t : t + 1], state).state
        _, met, _ = state.target.blocks[0]
        sizes.add((met.k.view.data_ptr(), *met.k.view.shape))
    assert len(sizes) == 1 and next(iter(sizes))[3] == SLOTS
