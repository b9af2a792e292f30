"""GTrXL is the paper's recurrence, worked out by hand from its equations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import GRUGate, make
from formers.carried import carries
from formers.spec.core import parts_within

SEGMENT, MEMORY, DIM = 4, 6, 12


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def model() -> Any:
    given = {"vocab": 11, "dim": DIM, "depth": 3, "heads": 3, "hidden": 16, "segment": SEGMENT, "memory": MEMORY}
    torch.manual_seed(0)
    model = make("gtrxl", **given).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def sinusoid(distance: int) -> Tensor:
    rates = [10_000 ** (-2 * i / DIM) for i in range(DIM // 2)]
    return torch.tensor([math.sin(distance * r) for r in rates] + [math.cos(distance * r) for r in rates])


def attention_by_hand(attention: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """Relative attention of x (T, M), which ends the context (S + T, M), pair by pair."""
    project, place = attention.projection, attention.position
    heads, wide = place.u.shape
    q, k, v = project.q_proj(x), project.k_proj(context), project.v_proj(context)
    out = torch.zeros(len(x), heads * wide)
    for head in range(heads):
        own = slice(head * wide, (head + 1) * wide)
        for i in range(len(x)):
            here = len(context) - len(x) + i
            scores = []
            for j in range(here + 1):
                r = place.r_proj.weight[own] @ sinusoid(here - j)
                by_content = (q[i, own] + place.u[head]) @ k[j, own]
                scores.append((by_content + (q[i, own] + place.v[head]) @ r) / wide**0.5)
            out[i, own] = torch.stack(scores).softmax(0) @ v[: here + 1, own]
    return project.out_proj(out)


def gate_by_hand(gate: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r = torch.sigmoid(y @ gate.w_r.weight.T + x @ gate.u_r.weight.T)
    z = torch.sigmoid(y @ gate.w_z.weight.T + x @ gate.u_z.weight.T - gate.bias)
    h = torch.tanh(y @ gate.w_g.weight.T + (r * x) @ gate.u_g.weight.T)
    return (1 - z) * x + z * h


def paper(model: Any, row: Tensor) -> Tensor:
    """Logits of one row (T,), segment by segment: the memory is the stream, and is normed where it is read."""
    memories = [torch.zeros(0, DIM) for _ in model.stack.blocks]
    logits = []
    for segment in row.split(SEGMENT):
        e = model.embedding.tokens(segment) * DIM**0.5
        for i, block in enumerate(model.stack.blocks):
            (attention, feed_forward), (norm_1, norm_2) = block.sublayers, block.residual.norms
            first, second = block.residual.gates
            stream = torch.cat([memories[i], e])
            memories[i] = stream[-MEMORY:]
            e = gate_by_hand(first, e, F.relu(attention_by_hand(attention, norm_1(e), norm_1(stream))))
            y = feed_forward.down(F.relu(feed_forward.up(norm_2(e))))
            e = gate_by_hand(second, e, F.relu(y))
        logits.append(e @ model.embedding.tokens.weight.T)
    return torch.cat(logits)


def test_logits_are_those_of_the_paper(model: Any) -> None:
    tokens = torch.randint(11, (2, 15))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, torch.stack([paper(model, row) for row in tokens]))


def test_it_has_no_last_norm_and_its_state_is_carried(model: Any) -> None:
    assert model.norm is None
    assert carries(model.spec)


def test_gates_begin_where_the_member_is_told() -> None:
    spec = make("gtrxl", vocab=11, dim=DIM, depth=2, heads=3, hidden=16, bias=0.5)
    assert {part.bias for part in parts_within(spec) if isinstance(part, GRUGate)} == {0.5}
