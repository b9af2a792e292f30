"""Windows of trajectories, and training a Decision Transformer on them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import ConfigError, DataError, make
from formers.control.decision.model import Decided
from formers.control.decision.task import Decisions, standardise
from formers.control.spaces import Choices, Numbers
from formers.control.trajectories import Trajectories, write_trajectories
from formers.train import AdamW, Constant, TrainSpec, load_model, train

LENGTHS = [7, 2, 12, 1, 5, 3] * 4
SPEC = TrainSpec(3, batch=32, length=4, evaluate_every=3)


def told(action: Any = Choices(50)) -> Trajectories:
    """Episodes in which step t of episode e is observed as (e, t), and done as t."""
    count, lengths = sum(LENGTHS), torch.tensor(LENGTHS)
    step = torch.cat([torch.arange(length) for length in LENGTHS])
    episode = torch.arange(len(LENGTHS)).repeat_interleave(lengths)
    actions = step if isinstance(action, Choices) else step[:, None].float() * torch.ones(action.width)
    return Trajectories(
        None,
        Numbers(2),
        action,
        torch.stack([episode, step], 1).float(),
        actions,
        torch.ones(count),
        lengths.cumsum(0),
        torch.ones(len(LENGTHS), dtype=torch.bool),
        torch.zeros(len(LENGTHS), dtype=torch.int64),
        fingerprint="of a file",
    )


def model_of(data: Trajectories, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 1, "heads": 2, "context": 4, "horizon": 12, "return_scale": 12.0, "dropout": 0.0}
    spaces = {"observation": data.observation, "action": data.action}
    return make("decision_transformer", **sizes | spaces | changes).build()


def test_a_window_is_a_run_of_steps_with_padding_before_it() -> None:
    task = Decisions(told(), SPEC)
    for number in range(1, 20):
        batch = task.batch(number)
        for row in range(32):
            mask = batch["mask"][row]
            assert mask.any() and torch.equal(mask, mask.sort().values)  # padding stands on the left
            episode, step = batch["observations"][row][mask].long().unbind(1)
            assert (episode == episode[0]).all()
            assert torch.equal(step, torch.arange(int(step[0]), int(step[0]) + len(step)))
            length = LENGTHS[int(episode[0])]
            assert len(step) == min(4, length - int(step[0]))
            assert torch.equal(batch["timesteps"][row][mask], step)
            assert torch.equal(batch["actions"][row][mask], step)
            assert torch.equal(batch["returns"][row][mask], (length - step).float())
        assert task.size(batch) == (3 * int(batch["mask"].sum()), int(batch["mask"].sum()))


def test_episodes_are_drawn_by_their_length_and_some_are_never_drawn() -> None:
    task = Decisions(told(), SPEC.replace(batch=4000))
    first = task.batch(1)["observations"][:, -1, 0].long()
    counts = first.bincount(minlength=len(LENGTHS))
    trained = counts > 0
    assert int((~trained).sum()) == 1
    share = torch.tensor(LENGTHS) * trained
    torch.testing.assert_close(counts / 4000, share / share.sum(), atol=0.02, rtol=0)


def test_a_step_always_draws_the_same_and_no_other_step_does() -> None:
    task = Decisions(told(), SPEC)
    assert torch.equal(task.batch(7)["observations"], task.batch(7)["observations"])
    for other in (task.batch(8), Decisions(told(), SPEC.replace(seed=1)).batch(7)):
        assert not torch.equal(task.batch(7)["observations"], other["observations"])


class Clock(nn.Module):
    """Knows the step from the observation, and is wrong by `slip`."""

    def __init__(self, slip: int = 0) -> None:
        super().__init__()
        self.slip, self.seen, self.place = slip, [], nn.Parameter(torch.zeros(1))

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor, **named: Any
    ) -> Decided:
        step = observations[..., 1] + self.slip
        self.seen.append(observations[named["mask"]])
        logits = 20.0 * nn.functional.one_hot(step.long(), 50)
        return Decided(logits if actions.dim() == 2 else step[..., None].expand_as(actions), None, {}, {})


def test_every_held_out_step_is_looked_at_once_and_counts_alike() -> None:
    data = told()
    task, clock = Decisions(data, SPEC.replace(batch=2)), Clock()
    found = task.evaluate(clock)
    seen = torch.cat(clock.seen)
    held_out = int(seen[0, 0])
    assert seen[:, 1].tolist() == list(range(LENGTHS[held_out])) and (seen[:, 0] == held_out).all()
    assert found["steps"] == LENGTHS[held_out] and found["accuracy"] == 1 and found["nats_per_action"] < 1e-3
    wrong = task.evaluate(Clock(slip=1))
    assert wrong["accuracy"] == 0 and abs(wrong["nats_per_action"] - 20) < 1e-3
    assert not any((task.batch(n)["observations"][..., 0] == held_out).any() for n in range(1, 30))


def test_numbers_are_told_by_their_squared_error() -> None:
    task = Decisions(told(Numbers(3)), SPEC)
    assert task.evaluate(Clock(slip=2))["squared_error"] == 4
    batch = task.batch(1)
    assert float(task.loss(Clock(slip=2), batch).nats) == 4 * int(batch["mask"].sum())


def test_padding_costs_nothing() -> None:
    data = told()
    task, model = Decisions(data, SPEC), model_of(data)
    batch = task.batch(1)
    before = task.loss(model, batch).nats
    other = dict(batch)
    for name in ("returns", "observations", "actions"):
        shape = batch["mask"].view(*batch["mask"].shape, *[1] * (batch[name].dim() - 2))
        other[name] = torch.where(shape, batch[name], torch.ones_like(batch[name]))
    assert not torch.equal(other["observations"], batch["observations"])
    torch.testing.assert_close(task.loss(model, other).nats, before)


def test_standing_numbers_do_not_divide_by_nothing() -> None:
    data = told()
    model = model_of(data)
    standardise(model, replace(data, observations=torch.ones_like(data.observations)))
    batch = Decisions(data, SPEC).batch(1)
    assert torch.isfinite(Decisions(data, SPEC).loss(model, batch).nats)
    standardise(model, data)
    torch.testing.assert_close(model.embedding.observations.mean, data.observations.mean(0))
    choosing = model_of(replace(data, observation=Choices(4)))
    standardise(choosing, data)  # nothing to do


@pytest.mark.parametrize("action", [Choices(50), Numbers(2, (-20.0,) * 2, (20.0,) * 2)])
def test_it_learns_by_the_houses_loop_and_goes_on_where_it_stopped(action: Any, tmp_path: Path) -> None:
    data = write_trajectories(tmp_path / "data", told(action))
    spec = TrainSpec(
        30, 16, 4, optimizer=AdamW(1e-2), schedule=Constant(), evaluate_every=30, checkpoint_every=15, keep=9
    )
    task, losses = Decisions(data, spec), []
    for name in ("whole", "parts"):
        model = model_of(data)
        standardise(model, data)
        losses.append(train(model, task, spec, tmp_path / name).held_out)
        if name == "whole":
            begun = task.evaluate(model_of(data))
            loss = "nats_per_action" if isinstance(action, Choices) else "squared_error"
            assert losses[0][loss] < 0.7 * begun[loss]
    (tmp_path / "parts" / "checkpoints" / "step-000030").rename(tmp_path / "away")
    resumed = train(model_of(data), task, spec, tmp_path / "parts", resume=True)
    assert resumed.held_out == losses[0] == losses[1]
    assert task.evaluate(load_model(tmp_path / "parts")) == losses[0]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        (
            {"action": Choices(2)},
            r"actions are Choices\(count=2\), and those of the trajectories are Choices\(count=50\)",
        ),
        ({"observation": Numbers(3)}, r"observations are Numbers\(width=3\)"),
        ({"horizon": 11}, "an episode has 12 steps and the model counts 11: give it horizon=12"),
        ({"context": 5}, "rows are 4 steps and the model looks back 5"),
    ],
)
def test_a_model_that_does_not_fit_is_told(changes: dict[str, Any], wrong: str) -> None:
    data = told()
    with pytest.raises(ConfigError, match=wrong):
        Decisions(data, SPEC).require(model_of(data, **changes).spec)


def test_other_models_and_single_episodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="for a DecisionTransformer, not a Decoder"):
        Decisions(told(), SPEC).require(make("gpt2"))
    one = Trajectories(None, Choices(2), Choices(2), *[torch.zeros(1, dtype=torch.int64)] * 2, torch.zeros(1),
                       torch.ones(1, dtype=torch.int64), torch.ones(1), torch.zeros(1))  # fmt: skip
    with pytest.raises(DataError, match="of one episode none can be held out"):
        Decisions(one, SPEC)
