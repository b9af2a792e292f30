"""Compressive memory equals a plain loop over segments, and its losses train the compression and nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formers import (
    LSH,
    MLP,
    Attention,
    Block,
    Causal,
    CompressiveMemory,
    ConfigError,
    ConvCompression,
    Decoder,
    DilatedCompression,
    Embedding,
    Encoder,
    Learned,
    MaxCompression,
    MeanCompression,
    MostUsedCompression,
    MultConv,
    NoPosition,
    Same,
    Segments,
    TransformerXL,
    stack,
)
from formers.attention.compressive.remembered import Remembered, placed
from formers.attention.plan import block_plan, dense_plan
from formers.attention.tiles import attend_tiles
from formers.call import Call
from formers.carried import carries, remembering
from formers.places import Places
from formers.position.absolute import sinusoid
from formers.spec import Site
from formers.state import detach, tensors
from formers.tokens import place

pytestmark = pytest.mark.usefixtures("float64")

DIM, HEADS, SEGMENT, MEMORY, SLOTS, RATE = 8, 2, 4, 8, 5, 2
COMPRESSIONS = [kind(RATE) for kind in (MeanCompression, MaxCompression, ConvCompression, MostUsedCompression)]
COMPRESSIONS += [DilatedCompression(RATE, 3)]
LOSSES = ("attention", "autoencoding")


def attention(compression: Any = ConvCompression(RATE), loss: Any = None) -> Attention:
    memory = CompressiveMemory(SEGMENT, MEMORY, SLOTS, compression, loss)
    return Attention(HEADS, position=TransformerXL(), memory=memory)


def layer_of(compression: Any = ConvCompression(RATE), loss: Any = None) -> Any:
    layer = attention(compression, loss).build(Site(DIM, causal=True))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def decoder(loss: Any = "attention") -> Decoder:
    return Decoder("compressive", 11, DIM, stack(Block((attention(loss=loss), MLP(8))), times=2))


def heads_of(x: Tensor) -> Tensor:
    """(T, M) -> (H, T, D)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(0, 1)


def weights_of(layer: Any, segment: Tensor, everything: Tensor) -> Tensor:
    """Transformer-XL's four terms of one row, pair by pair over slots that stand one step apart: (H, T, S)."""
    q, k = heads_of(layer.projection.q_proj(segment)), heads_of(layer.projection.k_proj(everything))
    position, (t, s) = layer.position, (len(segment), len(everything))
    scores = torch.full((HEADS, t, s), float("-inf"))
    for i in range(t):
        for j in range(s - t + i + 1):
            r = heads_of(position.r_proj(sinusoid(torch.tensor([s - t + i - j]), DIM, "halves", q.dtype)))[:, 0]
            by_content, by_place = (q[:, i] + position.u) * k[:, j], (q[:, i] + position.v) * r
            scores[:, i, j] = (by_content + by_place).sum(-1) * (DIM // HEADS) ** -0.5
    return scores.softmax(-1)


def compressed(layer: Any, leaving: Tensor, use: Tensor) -> Tensor:
    """Section 3.2 of the paper, in words of its own: (n, M) -> (n / rate, M)."""
    spec, groups = layer.spec.memory.compression, leaving.split(RATE)
    if isinstance(spec, MeanCompression):
        return torch.stack([sum(group) / RATE for group in groups])
    if isinstance(spec, MaxCompression):
        return torch.stack([torch.maximum(*group) for group in groups])
    if isinstance(spec, MostUsedCompression):
        most = sorted(range(len(leaving)), key=lambda i: -use[i])[: len(leaving) // RATE]
        return leaving[sorted(most)]
    conv, dilation = layer.memory.compress.conv, getattr(spec, "dilation", 1)
    outside = (dilation - 1) * (RATE - 1)
    padded = F.pad(leaving, (0, 0, outside // 2, outside - outside // 2))
    taps = [[padded[RATE * i + dilation * j] for j in range(RATE)] for i in range(len(leaving) // RATE)]
    return torch.stack([sum(conv.weight[:, :, j] @ x for j, x in enumerate(row)) + conv.bias for row in taps])


def loop(layer: Any, x: Tensor) -> Tensor:
    """One row (T, M), segment by segment, in the words of the paper's algorithm 1."""
    memory, slots, out = x[:0], x[:0], []
    for segment in x.split(SEGMENT):
        everything = torch.cat([slots, memory, segment])
        weights = weights_of(layer, segment, everything)
        heads = weights @ heads_of(layer.projection.v_proj(everything))
        out.append(layer.projection.out_proj(heads.transpose(0, 1).flatten(1)))
        if len(memory) == MEMORY and len(segment) == SEGMENT:
            use = weights[..., len(slots) : len(slots) + SEGMENT].mean((0, 1))
            slots = torch.cat([slots, compressed(layer, memory[:SEGMENT], use)])[-SLOTS:]
        memory = torch.cat([memory, segment])[-MEMORY:]
    return torch.cat(out)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=repr)
def test_equals_a_plain_loop_over_segments(compression: Any) -> None:
    layer, x = layer_of(compression), torch.randn(1, 35, DIM)
    wanted = loop(layer, x[0])
    torch.testing.assert_close(layer(x, Call(Places.run(0, 35))).y[0], wanted)
    state, out = None, []
    for start, stop in ((0, 3), (3, 17), (17, 24), (24, 25), (25, 35)):
        found = layer(x[:, start:stop], Call(Places.run(start, stop - start)), state)
        state = found.state
        out.append(found.y[0])
    torch.testing.assert_close(torch.cat(out), wanted)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=repr)
def test_ragged_rows_equal_the_loop_of_each(compression: Any) -> None:
    layer, x = layer_of(compression), torch.randn(4, 27, DIM)
    mask = torch.ones(4, 27, dtype=torch.bool)
    mask[0, :9] = mask[1, 20:] = mask[2, 5:16] = mask[3] = False
    y = layer(x, Call(place(mask.long(), 0, mask, None))).y
    assert y[3].isfinite().all()
    for row in range(3):
        torch.testing.assert_close(y[row][mask[row]], loop(layer, x[row][mask[row]]))


def test_what_was_forgotten_is_told_by_slots_alone() -> None:
    """The first segment reaches a late token through the compression, and no longer when its slots have gone too."""
    layer, x = layer_of(), torch.randn(1, 40, DIM, requires_grad=True)
    y = layer(x, Call(Places.run(0, 40))).y
    reached = [bool(torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)[0][0, 0].any()) for t in range(40)]
    held = MEMORY + SEGMENT * -(-SLOTS * RATE // SEGMENT)  # tokens of whole segments, the last of them cut by the queue
    assert all(reached[: SEGMENT + held - SEGMENT]) and not any(reached[SEGMENT + held :])


def test_the_state_does_not_grow() -> None:
    layer, state, sizes = layer_of(), None, set()
    for start in range(0, 10 * SEGMENT, SEGMENT):
        state = layer(torch.randn(2, SEGMENT, DIM), Call(Places.run(start, SEGMENT)), state).state
        sizes.add((state.inputs.view.shape[2], state.slots.shape[1]))
    assert sizes == {(SEGMENT, SLOTS), (MEMORY, SLOTS)}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_trains_the_compression_alone(loss: str) -> None:
    model, inputs = decoder(loss).build(), torch.randint(11, (2, 16))
    first = model(inputs[:, :8])
    assert not first.losses
    second = model(inputs[:, 8:12], first.state)
    second.losses["compression"].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {"conv"} | ({"restore"} if loss == "autoencoding" else set())
    assert {name.split(".")[-2] for name in trained} == parts
    assert len(trained) == 2 * 2 * len(parts)  # weight and bias, in both layers
    assert not [key for key in second.losses if key != "compression"]


def test_the_models_loss_trains_the_compression_only_where_it_reaches_back() -> None:
    model, inputs = decoder().build(), torch.randint(11, (2, 16))

    def learns(state: Any) -> bool:
        weight = model.stack.blocks[0].sublayers[0].memory.compress.conv.weight
        out = model(inputs[:, 12:], state).logits.sum()
        (grad,) = torch.autograd.grad(out, weight, allow_unused=True)
        return grad is not None and bool(grad.any())

    state = model(inputs[:, :12]).state
    assert learns(state)
    assert not learns(detach(state))


def test_losses_are_those_of_the_formulas() -> None:
    x = torch.randn(1, 12, DIM)
    leaving, heard, call = x[0, :4], x[0, 8:], Call(Places.run(0, 12))
    layer = layer_of(loss="autoencoding").train()
    slots, restore = compressed(layer, leaving, leaving), layer.memory.loss.restore
    made = torch.cat([torch.stack([restore.weight[:, :, j].T @ s + restore.bias for j in range(RATE)]) for s in slots])
    wanted = (made - leaving).square().mean()
    torch.testing.assert_close(layer(x, call).losses["compression"], wanted)

    layer = layer_of(loss="attention").train()

    def read(memory: Tensor) -> Tensor:
        project = layer.projection
        q, k, v = (
            heads_of(f(t)) for f, t in ((project.q_proj, heard), (project.k_proj, memory), (project.v_proj, memory))
        )
        return (q @ k.mT * (DIM // HEADS) ** -0.5).softmax(-1) @ v

    wanted = (read(compressed(layer, leaving, leaving)) - read(leaving)).square().mean()
    torch.testing.assert_close(layer(x, call).losses["compression"], wanted)
    assert not layer.eval()(x, call).losses


@pytest.mark.parametrize("loss", LOSSES)
def test_each_segment_is_charged_once_wherever_calls_end(loss: str) -> None:
    """The mean over the segments that were compressed: two of one row, four of the other."""
    layer, x = layer_of(loss=loss).train(), torch.randn(2, 25, DIM)
    mask = torch.ones(2, 25, dtype=torch.bool)
    mask[0, :8] = False
    whole = layer(x, Call(place(mask.long(), 0, mask, None))).losses["compression"]
    each = []
    for row, count in enumerate((2, 4)):
        own, state, found = x[row : row + 1, mask[row]], None, []
        for t in range(own.shape[1]):
            out = layer(own[:, t : t + 1], Call(Places.run(t, 1)), state)
            state = out.state
            found += out.losses.values()
        assert len(found) == count
        each += found
    torch.testing.assert_close(whole, torch.stack(each).mean())


def test_tokens_before_the_first_call_are_asked_for() -> None:
    with pytest.raises(ValueError, match="no state of the 5 tokens before these"):
        layer_of()(torch.randn(1, 3, DIM), Call(Places.run(5, 3)))


def test_nothing_is_kept_of_a_call_that_nobody_continues() -> None:
    model, inputs = decoder().build(), torch.randint(11, (2, 16))
    out = model(inputs, remember=False)
    assert out.state is None
    torch.testing.assert_close(out.logits, model(inputs).logits)
    assert tensors(model(inputs).state)


def test_slots_meet_the_queries_of_their_segment_alone_in_every_schedule() -> None:
    """Blocks of 4 that are reached show what all pairs show."""
    pattern, position = Causal() & Remembered(Segments(6, 6), 4), NoPosition().build(Site(DIM, heads=2, head_dim=4))
    segment, tokens = torch.arange(2, 7).repeat_interleave(4)[None], torch.arange(42)[None]
    pos = torch.cat([segment * 6 - 6 - torch.tensor([4, 3, 2, 1]).repeat(5), tokens], 1)
    at, to = Places.run(0, 42), placed(pos, torch.rand(1, pos.shape[1]) < 0.9, segment)
    q, k, v = (torch.randn(1, 2, n, 4) for n in (42, pos.shape[1], pos.shape[1]))
    plans = [block_plan(pattern, at, to, 4), dense_plan(42, pos.shape[1])]
    out, dense = (
        attend_tiles(q, k, v, plan, at=at, to=to, pattern=pattern, position=position, scale=0.5)[0] for plan in plans
    )
    torch.testing.assert_close(out, dense)
    assert plans[0].pairs < 0.6 * plans[1].pairs


FAULTS = {
    "one or more whole segments of 4": {"memory": 6},
    "memory of 2 tokens is not one": {"memory": 2},
    "not compressed evenly where 3 become one": {"compression": ConvCompression(3)},
    "1 slots cannot hold the 2 of one segment": {"compressed": 1},
    "nothing for the loss 'attention' to train": {"compression": MeanCompression(2), "loss": "attention"},
    "nothing for the loss 'autoencoding' to train": {"compression": MostUsedCompression(2), "loss": "autoencoding"},
    "segments of 0 tokens hold nothing": {"segment": 0},
    "no 0 vectors become one": {"compression": MaxCompression(0)},
    "taps cannot stand 0 vectors apart": {"compression": DilatedCompression(2, 0)},
}


@pytest.mark.parametrize("what", FAULTS)
def test_sizes_that_do_not_fit_are_refused(what: str) -> None:
    memory = CompressiveMemory(SEGMENT, MEMORY, SLOTS, MeanCompression(RATE)).replace(**FAULTS[what])
    with pytest.raises(ConfigError, match=what):
        Decoder("faulty", 11, DIM, (Block((Attention(HEADS, memory=memory),)),)).build()


BESIDE = {
    "plans for keys that stay": {"select": LSH(4, 1, 2, strict=True)},
    "cannot make keys of slots": {"projection": MultConv()},
    "goes by marks, and slots have none": {"pattern": Causal() & Same("document")},
}


@pytest.mark.parametrize("what", BESIDE)
def test_parts_of_attention_that_do_not_go_with_it_are_refused(what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Decoder("faulty", 11, DIM, (Block((attention().replace(**BESIDE[what]),)),)).build()


def test_an_encoder_has_no_such_memory() -> None:
    with pytest.raises(ConfigError, match="belongs to a decoder"):
        Encoder("faulty", 11, DIM, (Block((attention(),)),)).build()


def test_absolute_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match="brings what came before without end"):
        decoder().replace(embedding=Embedding(Learned(64))).build()


def test_it_is_trained_on_streams_and_reads_with_another_memory() -> None:
    assert carries(decoder())
    longer = remembering(decoder(), 2 * MEMORY)
    assert longer.blocks[0].sublayers[0].memory == attention(loss="attention").memory.replace(memory=2 * MEMORY)
    with pytest.raises(ConfigError, match="memory of 6 tokens is not one or more whole segments"):
        remembering(decoder(), 6).build()


def test_keys_are_made_once_a_segment_where_nothing_is_trained() -> None:
    layer, seen = layer_of().eval(), []
    layer.projection.k_proj.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    state, everything = None, 5 * SEGMENT
    with torch.no_grad():
        for t in range(everything):
            state = layer(torch.randn(1, 1, DIM), Call(Places.run(t, 1)), state).state
    assert [n - 1 for n in seen if n > 1] == [SEGMENT, MEMORY, MEMORY + 2, MEMORY + 4] and len(seen) == everything
