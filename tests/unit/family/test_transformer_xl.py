"""Transformer-XL is the paper's recurrence, and the recurrence is a pattern."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import Causal, ConfigError, Decoder, Segments, make
from formers.carried import carries, remembering
from formers.spec import assign
from formers.state import detach, tensors

SEGMENT, MEMORY = 4, 6


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def awake(spec: Any) -> Any:
    torch.manual_seed(0)
    model = spec.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def model() -> Any:
    given = {"vocab": 11, "dim": 12, "depth": 3, "heads": 3, "hidden": 16, "segment": SEGMENT, "memory": MEMORY}
    return awake(make("transformer_xl", **given, dropout=0.0))


def ids(length: int, batch: int = 2) -> Tensor:
    return torch.randint(0, 11, (batch, length), generator=torch.Generator().manual_seed(length))


def sinusoid(distance: int, dim: int) -> Tensor:
    rates = [10_000 ** (-2 * i / dim) for i in range(dim // 2)]
    return torch.tensor([math.sin(distance * r) for r in rates] + [math.cos(distance * r) for r in rates])


def layer_by_hand(block: nn.Module, h: Tensor, memory: Tensor) -> Tensor:
    """Section 3.3 of the paper, pair by pair, for one row: h (T, M) after memory (S, M)."""
    attention, feed_forward = block.sublayers
    project, place = attention.projection, attention.position
    heads, wide = place.u.shape
    dim, context = h.shape[1], torch.cat([memory.detach(), h])
    q, k, v = project.q_proj(h), project.k_proj(context), project.v_proj(context)
    out = torch.zeros(len(h), heads * wide)
    for head in range(heads):
        own = slice(head * wide, (head + 1) * wide)
        for i in range(len(h)):
            here = len(memory) + i
            scores = []
            for j in range(here + 1):
                r = place.r_proj.weight[own] @ sinusoid(here - j, dim)
                by_content = q[i, own] @ k[j, own] + place.u[head] @ k[j, own]
                by_place = q[i, own] @ r + place.v[head] @ r
                scores.append((by_content + by_place) / wide**0.5)
            weights = torch.stack(scores).softmax(0)
            out[i, own] = weights @ v[: here + 1, own]
    after, last = block.residual.norms
    h = after(h + project.out_proj(out))
    return last(h + feed_forward.down(feed_forward.up(h).relu()))


def paper(model: Any, row: Tensor) -> list[Tensor]:
    """Logits of each segment of one row (T,), as the recurrence of the paper makes them."""
    memories = [torch.zeros(0, 12) for _ in model.stack.blocks]
    logits = []
    for segment in row.split(SEGMENT):
        h = model.embedding.tokens(segment) * 12**0.5
        for n, block in enumerate(model.stack.blocks):
            entered = h
            h = layer_by_hand(block, h, memories[n])
            memories[n] = torch.cat([memories[n], entered])[-MEMORY:].detach()
        logits.append(h @ model.embedding.tokens.weight.T)
    return logits


def test_segments_with_a_detached_state_are_the_papers_loop(model: Any) -> None:
    inputs, state, found = ids(18), None, []
    for segment in inputs.split(SEGMENT, 1):
        out = model(segment, state)
        state = detach(out.state)
        found.append(out.logits)
    wanted = [torch.stack(rows) for rows in zip(*(paper(model, row) for row in inputs), strict=True)]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    weights = dict(model.named_parameters())
    ours = torch.autograd.grad(torch.cat(found, 1).square().sum(), list(weights.values()))
    theirs = torch.autograd.grad(torch.cat(wanted, 1).square().sum(), list(weights.values()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_recurrence_is_the_pattern(model: Any) -> None:
    """One pass under the pattern has the values of the recurrence; only the gradient reaches further."""
    inputs = ids(18)
    wanted = torch.stack([torch.cat(paper(model, row)) for row in inputs])
    torch.testing.assert_close(model(inputs).logits, wanted)


def test_stored_inputs_train_the_projections_and_get_no_gradient(model: Any) -> None:
    first, second = ids(8).split(SEGMENT, 1)
    attention = model.stack.blocks[0].sublayers[0]
    state = detach(model(first).state)
    held = state.blocks[0][0].inputs.view.requires_grad_()
    k_proj = attention.projection.k_proj
    met: list[Tensor] = []
    k_proj.register_forward_hook(lambda _, given, out: met.append(out))
    loss = model(second, state).logits.square().sum()
    of_keys, of_held = torch.autograd.grad(loss, [met[0], held])
    assert (of_keys[:, :SEGMENT].abs().sum((0, 2)) > 0).all()  # so the weights learn from what is stored
    assert of_held.abs().sum() > 0  # and whoever does not detach the state would reach further


def test_no_token_is_projected_twice_where_nothing_is_trained(model: Any) -> None:
    rows: list[int] = []
    for block in model.stack.blocks:
        block.sublayers[0].projection.k_proj.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    state = None
    with torch.no_grad():
        for token in ids(30).split(1, 1):
            state = model(token, state).state
    assert set(rows) == {1}
    assert max(len(part.inputs) for (part, _) in state.blocks) <= SEGMENT + MEMORY


def test_a_state_of_training_goes_on_in_evaluation_and_back(model: Any) -> None:
    inputs = ids(15)
    whole = model(inputs).logits
    trained = model.train()(inputs[:, :5]).state
    assert trained.blocks[0][0].k is None
    model.eval()
    with torch.no_grad():
        middle = model(inputs[:, 5:9], trained)
    torch.testing.assert_close(middle.logits, whole[:, 5:9])
    torch.testing.assert_close(model(inputs[:, 9:], middle.state).logits, whole[:, 9:])


def test_nothing_beyond_the_memory_is_kept(model: Any) -> None:
    for length in (1, 4, 7, 12, 33):
        with torch.no_grad():
            state = model(ids(length)).state
        begins = length // SEGMENT * SEGMENT
        assert len(state.blocks[0][0].inputs) == min(length, length - begins + MEMORY)


def test_the_pattern_reaches_a_layer_further_back_with_each_block(model: Any) -> None:
    inputs, furthest = ids(40, 1), 36
    for _ in range(3):  # the memory of a token begins before the segment that the token is in
        furthest = furthest // SEGMENT * SEGMENT - MEMORY
    with torch.no_grad():
        wanted = model(inputs).logits[0, -1]
        apart = [(_with(model, inputs, place)[0, -1] - wanted).abs().max() > 1e-9 for place in range(40)]
    assert apart.index(True) == furthest == 14


def _with(model: Any, inputs: Tensor, place: int) -> Tensor:
    other = inputs.clone()
    other[:, place] = (other[:, place] + 1) % 11
    return model(other).logits


def test_a_longer_memory_is_another_spec_with_the_same_parameters(model: Any) -> None:
    longer = remembering(model.spec, 20, clamp=7)
    attention = longer.blocks[1].sublayers[0]
    assert attention.pattern == Causal() & Segments(SEGMENT, 20)
    assert (attention.position.clamp, attention.heads) == (7, 3)
    other = longer.build().eval()
    other.load_state_dict(model.state_dict())
    short, long = ids(5), ids(40)
    torch.testing.assert_close(other(short).logits, model(short).logits)
    assert (other(long).logits - model(long).logits).abs().max() > 1e-3


def test_clamped_distances_are_one() -> None:
    given = {"vocab": 11, "dim": 12, "depth": 1, "heads": 3, "hidden": 16, "segment": 8, "memory": 16}
    clamped = awake(make("transformer_xl", **given, clamp=3))
    bare = awake(make("transformer_xl", **given, clamp=100))
    same, far = ids(4), ids(9)
    torch.testing.assert_close(clamped(same).logits, bare(same).logits)
    swapped = far.clone()
    swapped[:, [0, 1, 2, 3, 4]] = far[:, [4, 2, 0, 3, 1]]
    torch.testing.assert_close(clamped(swapped).logits[:, -1], clamped(far).logits[:, -1])
    assert (bare(swapped).logits[:, -1] - bare(far).logits[:, -1]).abs().max() > 1e-4


def test_the_state_is_inputs_alone_while_training(model: Any) -> None:
    state = model.train()(ids(9)).state
    widths = {tensor.shape[-1] for tensor in tensors(state.blocks) if tensor.dim() == 4}
    assert widths == {12} and carries(model.spec)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("embedding.position=Learned(64)", "absolute places"),
        ("blocks[*].sublayers[0].pattern=Causal()", "looks back without end"),
        ("blocks[*].sublayers[0].pattern=Causal() & Segments(4, -1)", "cannot be -1 tokens before a block"),
        ("blocks[*].sublayers[0].pattern=Causal() & Segments(0, 4)", "blocks of 0 tokens"),
        ("blocks[*].sublayers[0].position.clamp=0", "clamp=0"),
        ("blocks[*].sublayers[0].select=TopBlocks(4, 2)", "plans for keys that stay"),
    ],
)
def test_what_is_wrong_is_told_with_a_mend(model: Any, change: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        assign(model.spec, change).build()


@pytest.mark.parametrize(("name", "why"), [("gpt2", "positions are absolute"), ("llama", "no stored segments")])
def test_a_model_without_a_memory_cannot_be_given_another(name: str, why: str) -> None:
    spec: Decoder = make(name, vocab=11, dim=12, depth=1, heads=3)
    with pytest.raises(ConfigError, match=why):
        remembering(spec, 100)
