"""Memorizing attention is local attention, attention to the whole memory and a gate; its search finds what is nearest."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import (
    Attention,
    Blocks,
    Causal,
    Decoder,
    Embedding,
    MemorizingAttention,
    Rotary,
    Same,
    Window,
    load_state,
    make,
    save_state,
    stack,
)
from formers.attention.memorizing.layer import MemorizingAttentionLayer
from formers.attention.oracle import attend_dense
from formers.block import Block
from formers.call import Call
from formers.carried import with_memory
from formers.data.batches.packed import document_marks
from formers.errors import ConfigError
from formers.places import Places, keys, queries
from formers.spec import Site, check
from formers.state import handed_on

DIM, HEADS, SEGMENT, MEMORY = 24, 3, 5, 13
HEAD = torch.arange(HEADS)[:, None, None]

pytestmark = pytest.mark.usefixtures("float64")


def built(**fields: Any) -> MemorizingAttentionLayer:
    spec = MemorizingAttention(HEADS, **{"segment": SEGMENT, "memory": MEMORY, "top_k": 4, **fields})
    torch.manual_seed(0)
    layer = spec.build(Site(DIM, causal=True))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def formula(layer: MemorizingAttentionLayer, x: Tensor, at: Places) -> Tensor:
    """Every query against every token, the memory's keys and values without a gradient."""
    spec, pos = layer.spec, at.pos
    q, k, v = layer.projection.together(x)
    unit_q, unit_k = (t / t.norm(dim=-1, keepdim=True) for t in (q, k))
    scale = layer.scale[:, None, None]
    real = torch.ones(x.shape[:2], dtype=torch.bool) if at.real is None else at.real
    local_q, local_k = (unit_q * scale, unit_k) if spec.unit else (q * layer.plain_scale, k)
    turned = (layer.position.turn(t, at, Call(at).memo) for t in (local_q, local_k))
    shown = layer.pattern.visible(queries(at), keys(at), HEAD) & real[:, None, None]
    local = attend_dense(*turned, v, shown, scale=1.0)
    begin = (pos // spec.segment * spec.segment)[..., None]
    may = (pos[:, None] < begin) & (pos[:, None] >= begin - spec.memory) & real[:, None] & real[..., None]
    if "document" in at.marks:
        may = may & (at.marks["document"][:, None] == at.marks["document"][..., None])
    scores = (unit_q * scale) @ unit_k.detach().mT
    cosines = (unit_q @ unit_k.mT).masked_fill(~may[:, None], -torch.inf)
    least = cosines.sort(-1, descending=True).values[..., : spec.top_k].amin(-1, keepdim=True)
    met = may[:, None] & (cosines >= least)
    weights = scores.masked_fill(~met, -torch.inf).softmax(-1).nan_to_num()
    gate = torch.sigmoid(layer.gate)[:, None, None] * may.any(-1)[:, None, :, None]
    return layer.projection.output(gate * (weights @ v.detach()) + (1 - gate) * local)


def ragged() -> Places:
    """Padding on the left, on the right and in the middle."""
    real = torch.ones(4, 29, dtype=torch.bool)
    real[0, :8], real[1, 20:], real[2, 6:13] = False, False, False
    return Places((real.cumsum(1) - 1).clamp(min=0), real)


def marked(at: Places) -> Places:
    """The same with documents of unequal lengths, the ends of which are elsewhere in each row."""
    rows = 4 if at.real is None else len(at.real)
    ends = torch.randint(0, 9, (rows, at.length), generator=torch.Generator().manual_seed(3))
    marks = {"document": document_marks(ends, 8)["document"]}
    return Places.run(0, at.length, marks=marks) if at.start is not None else Places(at.pos, at.real, marks)


PLACES = {"run": Places.run(0, 29), "ragged": ragged()}
PLACES |= {f"{name}, documents": marked(at) for name, at in PLACES.items()}
FORMS = {
    "as it is": {},
    "the whole memory": {"top_k": MEMORY},
    "plain": {"unit": False, "position": Rotary(), "pattern": Causal() & Window(3)},
    "one key": {"top_k": 1, "memory": 6},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", PLACES)
def test_it_is_its_formula_forwards_and_backwards(form: str, where: str) -> None:
    layer, at = built(**FORMS[form]), PLACES[where]
    x = torch.randn(4, at.length, DIM, requires_grad=True)
    keep = torch.ones(4, at.length, dtype=torch.bool) if at.real is None else at.real
    ours, wanted = layer(x, Call(at)).y[keep], formula(layer, x, at)[keep]
    torch.testing.assert_close(ours, wanted)
    towards, learned = torch.randn_like(ours), [x, *layer.parameters()]
    gradients = torch.autograd.grad(ours, learned, towards)
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted, learned, towards))


def test_all_of_the_memory_is_dense_attention_to_it() -> None:
    """With as many neighbours as the memory has tokens, and a gate that is open, nothing is left out."""
    layer, at = built(top_k=MEMORY), Places.run(0, 29)
    with torch.no_grad():
        layer.gate.fill_(100.0)
        x = torch.randn(2, 29, DIM)
        q, k, v = layer.projection.together(x)
        start = at.pos[0, :, None] // SEGMENT * SEGMENT
        shown = (at.pos < start) & (at.pos >= start - MEMORY)
        q, k = F.normalize(q, dim=-1) * layer.scale[:, None, None], F.normalize(k, dim=-1)
        wanted = layer.projection.output(attend_dense(q, k, v, shown[None, None], scale=1.0))
        torch.testing.assert_close(layer(x, Call(at)).y[:, SEGMENT:], wanted[:, SEGMENT:])


def test_where_nothing_is_remembered_yet_it_is_local_attention() -> None:
    layer = built(unit=False, position=Rotary())
    plain = Attention(HEADS, pattern=Causal() & Blocks(SEGMENT, 1), position=Rotary()).build(Site(DIM, causal=True))
    plain.load_state_dict({n: t for n, t in layer.state_dict().items() if n not in ("gate", "scale")})
    x, at = torch.randn(2, 3 * SEGMENT, DIM), Places.run(0, 3 * SEGMENT)
    ours, theirs = layer(x, Call(at)).y, plain(x, Call(at)).y
    torch.testing.assert_close(ours[:, :SEGMENT], theirs[:, :SEGMENT])
    assert (ours[:, SEGMENT:] - theirs[:, SEGMENT:]).abs().amax(-1).min() > 1e-3
    with torch.no_grad():
        layer.gate.fill_(-100.0)
    torch.testing.assert_close(layer(x, Call(at)).y, theirs)


def test_keys_of_another_document_are_never_retrieved() -> None:
    """Another first document changes nothing after it, where local attention is kept within documents too."""
    layer = built(pattern=Causal() & Blocks(SEGMENT, 1) & Same("document"))
    marks = {"document": (torch.arange(29) >= 12).long()[None]}
    at, x = Places.run(0, 29, marks=marks), torch.randn(1, 29, DIM)
    other = torch.cat([torch.randn(1, 12, DIM), x[:, 12:]], 1)
    torch.testing.assert_close(layer(x, Call(at)).y[:, 12:], layer(other, Call(at)).y[:, 12:], rtol=0, atol=0)


def test_what_is_stored_has_no_gradient() -> None:
    layer, at = built(), Places.run(0, 3 * SEGMENT)
    x = torch.randn(1, 3 * SEGMENT, DIM, requires_grad=True)
    out = layer(x, Call(at))
    assert not out.state.store.keys.view.requires_grad
    assert not out.state.store.values.view.requires_grad
    (reached,) = torch.autograd.grad(out.y[:, 2 * SEGMENT :].sum(), x)
    assert not reached[:, :SEGMENT].any()  # two segments back: in the memory, and beyond local attention
    assert reached[:, SEGMENT:].any()


@pytest.mark.parametrize("chunk", [1, 4, SEGMENT])
def test_the_memory_is_first_in_first_out_and_is_not_copied(chunk: int) -> None:
    layer, x = built(), torch.randn(1, 60, DIM)
    state, buffers, lengths = None, set(), []
    with torch.no_grad():
        for first in range(0, 60, chunk):
            at = Places.run(first, min(chunk, 60 - first))
            state = handed_on(layer(x[:, first : first + chunk], Call(at), state).state)
            buffers.add(id(state.store.keys._buffer))
            lengths.append(state.store.places.length)
        _, k, _ = layer.projection.together(x)
    assert max(lengths) <= MEMORY + SEGMENT - 1
    assert lengths[-1] == MEMORY
    torch.testing.assert_close(state.store.keys.view, F.normalize(k, dim=-1)[:, :, -MEMORY:])
    assert len(buffers) <= 3


def test_skipping_leaves_the_state_of_running() -> None:
    layer, x, at = built(), torch.randn(2, 12, DIM), Places.run(0, 12)
    kept, wanted = layer.skip(x, Call(at)), layer(x, Call(at)).state
    for ours, theirs in ((kept.store, wanted.store), (kept.local, wanted.local)):
        torch.testing.assert_close((ours[0].view, ours[1].view), (theirs[0].view, theirs[1].view))


def test_choices_are_obeyed() -> None:
    layer, x, at = built(), torch.randn(1, 12, DIM), Places.run(0, 12)
    out = layer(x, Call(at))
    torch.testing.assert_close(layer(x, Call(at), choices=out.choices).y, out.y, rtol=0, atol=0)
    other = torch.where(out.choices >= 0, (out.choices + 1) % SEGMENT, -1)
    assert (layer(x, Call(at), choices=other).y - out.y).abs().max() > 1e-3


def test_a_stream_goes_on_from_a_file(tmp_path: Path) -> None:
    model = make("memorizing_transformer", vocab=40, dim=32, depth=2, heads=4, hidden=48, segment=4, memory=9,
                 top_k=3, layers=(1, 2)).build()  # fmt: skip
    tokens = torch.randint(0, 40, (2, 30))
    with torch.no_grad():
        save_state(tmp_path / "state", model(tokens[:, :17]).state)
        rest = model.step(tokens[:, 17:], load_state(tmp_path / "state"), logits_at=slice(None)).logits
        torch.testing.assert_close(rest, model(tokens).logits[:, 17:])


def test_a_longer_memory_than_in_training() -> None:
    model = make("memorizing_transformer", vocab=40, dim=32, depth=2, heads=4, hidden=48, segment=4, memory=4,
                 top_k=3, layers=(2,)).build()  # fmt: skip
    tokens = torch.randint(0, 40, (1, 20))
    with torch.no_grad():
        longer, short = with_memory(model, 12)(tokens).logits, model(tokens).logits
    torch.testing.assert_close(longer[:, :8], short[:, :8])
    assert (longer[:, 8:] - short[:, 8:]).abs().amax(-1).min() > 0
    with pytest.raises(ConfigError, match="a memory of 2 tokens does not hold top_k=3 keys"):
        with_memory(model, 2)


@pytest.mark.parametrize("segment", [1, 2, 3])
def test_tokens_pieces_and_one_pass_agree_in_short_segments(segment: int) -> None:
    layer = MemorizingAttention(HEADS, segment=segment, memory=6, top_k=2, position=Rotary())
    blocks = stack(Block((layer,)), times=2)
    model = Decoder("short", 40, DIM, blocks, Embedding()).build(streaming=True)
    inputs = torch.randint(0, 40, (2, 20))
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[1, 3:8] = False
    for given in (None, mask):
        whole = model(inputs, mask=given).logits
        for cuts in ([1] * 20, [7, 6, 7]):
            state, found = None, []
            for part, real in zip(
                inputs.split(cuts, 1), (given if given is not None else mask).split(cuts, 1), strict=True
            ):
                out = model.step(part, state, mask=None if given is None else real, logits_at=slice(None))
                found.append(out.logits)
                state = out.state
            torch.testing.assert_close(torch.cat(found, 1)[mask], whole[mask])


def test_half_precision_by_autocast_runs() -> None:
    layer = built(top_k=MEMORY).float()
    x = torch.randn(1, 20, DIM, dtype=torch.float32)
    exact = layer(x, Call(Places.run(0, 20))).y
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x, Call(Places.run(0, 20))).y
    half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"memory": 3}, "a memory of 3 tokens does not hold top_k=4 keys"),
        ({"top_k": 0}, "top_k=0 keys are no use"),
        ({"segment": 0}, "a segment of 0 tokens holds nothing"),
        ({"pattern": Window(3)}, "a decoder must not see the future"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], told: str) -> None:
    spec = MemorizingAttention(HEADS, **{"segment": SEGMENT, "memory": MEMORY, "top_k": 4, **fields})
    with pytest.raises(ConfigError, match=told):
        check(spec, Site(DIM, causal=True), "layer")


def test_an_encoder_has_nothing_to_remember() -> None:
    with pytest.raises(ConfigError, match="an encoder reads everything at once"):
        check(MemorizingAttention(HEADS), Site(DIM), "layer")


def test_a_layer_beyond_the_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="has layers 1 to 4, and no layer 9"):
        make("memorizing_transformer", depth=4)
