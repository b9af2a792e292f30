"""The laws of the family for a model that reads no tokens: no leak, steps equal one pass, padding, gradients, round trip."""

from pathlib import Path
from typing import Any

import pytest
import torch
from decisions import SMALL, SPACES, small, some, steps
from torch import nn

from formers import ConfigError, load_state, make, save_state
from formers.attention import Attention, Causal, Everything, Window
from formers.attention.oracle import attend_dense
from formers.spec import from_json
from formers.state import select
from formers.train import Run, load_model

KINDS = list(SPACES)


@pytest.mark.parametrize("kind", KINDS)
def test_no_action_sees_itself_or_what_comes_after(kind: str) -> None:
    model, length = small(kind), 9
    rows, other = steps(model, 2, length), steps(model, 2, length, seed=7)
    before = model(**rows).actions
    for at in range(length):
        changed = dict(rows)
        for name in ("returns", "observations"):  # of later steps, and the action of this one
            changed[name] = torch.cat([rows[name][:, : at + 1], other[name][:, at + 1 :]], 1)
        changed["actions"] = torch.cat([rows["actions"][:, :at], other["actions"][:, at:]], 1)
        torch.testing.assert_close(model(**changed).actions[:, : at + 1], before[:, : at + 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["returns", "observations", "actions", "timesteps"])
def test_every_kind_of_token_is_seen_by_what_comes_after(kind: str, name: str) -> None:
    model = small(kind)
    rows = steps(model, 2, 5)
    changed = dict(rows)
    changed[name] = rows[name].clone()
    changed[name][:, 1] = (rows[name][:, 1] + 1) % 4
    moved = (model(**changed).actions - model(**rows).actions).abs().amax((0, 2)) > 1e-6
    sees = [False, name != "actions", True, True, True]
    assert moved.tolist() == sees


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[1] * 9, [4, 5], [2, 1, 6]], ids=str)
@pytest.mark.parametrize("chosen", [True, False])
def test_steps_equal_one_pass(kind: str, cuts: list[int], chosen: bool) -> None:
    """Wherever calls end, behind a step's action or before it is chosen."""
    model = small(kind)
    rows, state, told, start = steps(model, 2, 9), None, [], 0
    for cut in cuts:
        out = model(**some(rows, start, start + cut, waiting=bool(start) and not chosen, chosen=chosen), state=state)
        told.append(out.actions)
        start, state = start + cut, out.state
    torch.testing.assert_close(torch.cat(told, 1), model(**rows).actions)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_a_padded_row_equals_the_row_alone(kind: str, side: str) -> None:
    model = small(kind)
    rows = steps(model, 3, 9)
    first, last = {"left": (4, 9), "right": (0, 5), "both": (2, 7)}[side]
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :first], mask[1, last:] = False, False
    alone = {name: tensor[1:2, first:last] for name, tensor in rows.items()}
    told = model(**rows, mask=mask).actions
    torch.testing.assert_close(told[1, first:last], model(**alone).actions[0])
    torch.testing.assert_close(told[2], model(**{name: tensor[2:] for name, tensor in rows.items()}).actions[0])


@pytest.mark.parametrize("chosen", [True, False])
def test_padding_between_calls_is_no_step(chosen: bool) -> None:
    model = small()
    rows = steps(model, 2, 8)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, :3] = False
    out = model(**some(rows, 0, 3, chosen=chosen), mask=mask[:, :3])
    told = model(**some(rows, 3, 8, waiting=not chosen), mask=mask[:, 3:], state=out.state).actions
    alone = {name: tensor[:1, 3:] for name, tensor in rows.items()}
    torch.testing.assert_close(told[0], model(**alone).actions[0])
    torch.testing.assert_close(told[1], model(**rows).actions[1, 3:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_changes_nothing(kind: str) -> None:
    """No hidden state: neither the module nor an older state is changed, and the same call gives the same."""
    model = small(kind)
    rows = steps(model, 2, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    begun = model(**some(rows, 0, 3, chosen=False)).state
    first = model(**some(rows, 3, 5, waiting=True), state=begun).actions
    model(**some(steps(model, 2, 6, seed=9), 3, 6, waiting=True), state=begun)
    assert torch.equal(first, model(**some(rows, 3, 5, waiting=True), state=begun).actions)
    torch.testing.assert_close(before, dict(model.state_dict()), rtol=0, atol=0)


def test_a_state_is_a_value_of_rows_and_a_file(tmp_path: Path) -> None:
    model = small()
    rows = steps(model, 3, 6)
    state = model(**some(rows, 0, 4, chosen=False), mask=torch.ones(3, 4, dtype=torch.bool)).state
    save_state(tmp_path / "state", state)
    rest = some(rows, 4, 6, waiting=True)
    told = model(**rest, state=state).actions
    assert torch.equal(model(**rest, state=load_state(tmp_path / "state")).actions, told)
    turned = {name: tensor[[2, 0]] for name, tensor in rest.items()}
    torch.testing.assert_close(model(**turned, state=select(state, torch.tensor([2, 0]))).actions, told[[2, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_by_finite_differences(kind: str) -> None:
    model = small(kind)
    rows = steps(model, 4, 16)
    parameters = dict(model.named_parameters())
    weights = torch.randn_like(model(**rows).actions)

    def loss() -> torch.Tensor:
        return (model(**rows).actions.tanh() * weights).sum()

    gradients = torch.autograd.grad(loss(), list(parameters.values()), materialize_grads=True)
    assert [name for name, grad in zip(parameters, gradients, strict=True) if not grad.any()] == []
    direction = [torch.randn_like(p) for p in parameters.values()]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    step, sides = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters.values(), direction, strict=True):
                p.add_(d, alpha=sign * step)
            sides.append(loss())
    torch.testing.assert_close(slope, (sides[0] - sides[1]) / (2 * step), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_spec_and_weights_come_back(kind: str, tmp_path: Path) -> None:
    model = small(kind).float()
    spec = model.spec
    assert from_json(spec.to_json()) == spec
    if kind != "choices":
        model.embedding.observations.standardise(torch.ones(3), torch.full((3,), 2.0))
    run = Run(tmp_path)
    run.hold(model, spec, None)
    rows = {name: t.float() if t.is_floating_point() else t for name, t in steps(model, 2, 5).items()}
    assert torch.equal(load_model(tmp_path)(**rows).actions, model(**rows).actions)


def test_the_tokens_meet_as_the_oracle_says() -> None:
    """The first block's attention, by hand: R, s and a of each step in turn, each with the vector of its step."""
    model = small("choices", depth=1)
    rows, e = steps(model, 2, 4), model.embedding
    time = e.steps(rows["timesteps"])
    told = [
        e.returns(rows["returns"][..., None] / 4.0) + time,
        e.observations(rows["observations"]) + time,
        e.actions(rows["actions"]) + time,
    ]
    x = e.norm(torch.stack([told[i % 3][:, i // 3] for i in range(12)], 1))
    block = model.stack.blocks[0]
    attention, mlp = block.sublayers
    q, k, v = (p.unflatten(-1, (2, 12)).transpose(1, 2) for p in _projected(attention, block.residual.norms[0](x)))
    met = attend_dense(q, k, v, torch.ones(12, 12, dtype=torch.bool).tril()[None, None])
    x = x + attention.projection.output(met)
    x = x + mlp.down(torch.relu(mlp.up(block.residual.norms[1](x))))
    torch.testing.assert_close(model(**rows).actions, model.head.linear(model.norm(x[:, 1::3])))


def _projected(attention: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    projection = attention.projection
    return [layer(x) for layer in (projection.q_proj, projection.k_proj, projection.v_proj)]


def test_actions_stay_within_their_bounds() -> None:
    model = small()
    with torch.no_grad():
        model.head.linear.weight.mul_(1e3)
    told = model(**steps(model, 8, 16)).actions.flatten(0, 1)
    low, high = torch.tensor([-1.0, -3.0]).double(), torch.tensor([1.0, 2.0]).double()
    torch.testing.assert_close(told.amin(0), low)
    torch.testing.assert_close(told.amax(0), high)


def test_numbers_are_read_in_units_of_the_data() -> None:
    model, rows = small(), steps(small(), 2, 4)
    told = model(**rows).actions
    mean, deviation = torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([2.0, 1.0, 0.5]).double()
    model.embedding.observations.standardise(mean, deviation)
    rows["observations"] = rows["observations"] * deviation + mean
    torch.testing.assert_close(model(**rows).actions, told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dim": 0}, "a stream 0 wide"),
        ({"context": 99}, "the last 99 steps of episodes of at most 16"),
        ({"horizon": 0}, "episodes of 0 steps"),
        ({"return_scale": 0.0}, "returns are divided by 0.0"),
        ({"dropout": 1.5}, "a dropout rate"),
        ({"heads": 5}, "dim 24 does not split into 5 heads"),
        ({"observation": Attention(2)}, "is a Attention, not Space"),
    ],
)
def test_what_cannot_be_built_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("decision_transformer", **{**SMALL, **SPACES["numbers"], **changes}).build()


def test_a_space_says_what_is_wrong_with_it() -> None:
    from formers.control.spaces import Choices, Numbers

    for space, told in [
        (Numbers(2, (0.0,), (1.0,)), "bounds 1 of 2 numbers"),
        (Numbers(1, (0.0,)), "on both sides or on neither"),
        (Numbers(1, (1.0,), (1.0,)), "nothing lies between"),
        (Numbers(0), "0 numbers"),
        (Choices(0), "0 choices"),
    ]:
        with pytest.raises(ConfigError, match=told):
            make("decision_transformer", action=space).build()


def test_a_pattern_that_sees_the_future_is_refused() -> None:
    spec = make("decision_transformer", **SMALL)
    for pattern in (Everything(), Window(4)):
        seeing = tuple(b.replace(sublayers=(Attention(2, pattern=pattern), b.sublayers[1])) for b in spec.blocks)
        with pytest.raises(ConfigError, match="must not see the future"):
            spec.replace(blocks=seeing).build()
    near = tuple(b.replace(sublayers=(Attention(2, pattern=Causal() & Window(4)), b.sublayers[1])) for b in spec.blocks)
    assert spec.replace(blocks=near).build(streaming=True) is not None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"observations": torch.zeros(2, 4, 5)}, r"must be \(2, 4, 3\)"),
        ({"actions": torch.zeros(2, 6, 2)}, r"must be \(2, 4, 2\), got \(2, 6, 2\)"),
        ({"actions": torch.zeros(2, 1, 2)}, r"must be \(2, 3, 2\), got \(2, 1, 2\)"),
        ({"timesteps": torch.full((2, 4), 16)}, "from 0 to 15 here, and one is 16"),
        ({"timesteps": torch.zeros(2, 3, dtype=torch.int64)}, "timesteps has shape"),
        ({"returns": torch.zeros(4)}, r"returns must be \(batch, steps\)"),
    ],
)
def test_shapes_that_do_not_fit_are_told(changed: dict[str, torch.Tensor], told: str) -> None:
    model = small()
    with pytest.raises(ValueError, match=told):
        model(**{**steps(model, 2, 4), **changed})
