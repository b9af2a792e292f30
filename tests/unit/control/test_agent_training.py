"""What an agent experiences, what it makes of it, and a run of it that is stopped and goes on."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from formers.control.agent import PPO, Agent, Experience, Learner, Rollouts, act, advantages, gtrxl_agent, train_agent
from formers.control.agent.train import smoothed
from formers.control.environment import Environment, Moved
from formers.control.spaces import Choices, Numbers
from formers.errors import CheckpointError, ConfigError
from formers.train.metrics import read_metrics
from formers.train.run import load_model

DISCOUNT, TRACE = 0.9, 0.8


class Counting:
    """An environment that shows how many steps were done, pays 1 for each, and cuts or ends episodes after some."""

    name = "counting"

    def __init__(self, steps: int, *, cut: bool) -> None:
        self.observation, self.action = Numbers(1), Choices(2)
        self.steps, self.cut, self.done, self.begun = steps, cut, 0, 0

    def reset(self, seed: int) -> Any:
        self.done, self.begun = 0, self.begun + 1
        return np.zeros(1, dtype=np.float32)

    def step(self, action: Any) -> Moved:
        self.done += 1
        over = self.done == self.steps
        return Moved(np.full(1, self.done, dtype=np.float32), 1.0, over and not self.cut, over and self.cut)

    def close(self) -> None:
        pass


def small(environment: Any) -> Agent:
    sizes = {"dim": 8, "depth": 1, "heads": 2, "hidden": 8, "segment": 3, "memory": 2}
    return gtrxl_agent(environment.observation, environment.action, **sizes)


def experienced(environments: list[Any], steps: int) -> tuple[Rollouts, Experience]:
    torch.manual_seed(0)
    model = small(environments[0]).build()
    torch.nn.init.normal_(model.value.weight)
    rollouts, chance = Rollouts(model, environments), torch.Generator().manual_seed(0)
    rollouts.restart(chance)
    return rollouts, rollouts.collect(steps, DISCOUNT, chance)


def test_experience_is_what_happened() -> None:
    rollouts, found = experienced([Counting(3, cut=False), Counting(4, cut=False)], 7)
    assert found.observations[..., 0].tolist() == [[0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1, 2]]
    assert found.begins.long().tolist() == [[1, 0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0]]
    assert found.ends.long().tolist() == [[0, 0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0, 0]]
    torch.testing.assert_close(found.rewards, torch.ones(2, 7))
    assert [one.steps for one in rollouts.finished] == [3, 4, 3]


def test_the_next_batch_goes_on_where_this_one_stopped() -> None:
    rollouts, first = experienced([Counting(5, cut=False)], 3)
    second = rollouts.collect(4, DISCOUNT, torch.Generator().manual_seed(1))
    assert second.observations[0, :, 0].tolist() == [3, 4, 0, 1]
    torch.testing.assert_close(second.values[:, 0], first.last)


def test_learning_meets_the_probabilities_that_acting_did() -> None:
    """One pass over the rows, after the memory of what was before, is what was done step by step."""
    rollouts, _ = experienced([Counting(5, cut=False), Counting(4, cut=True)], 7)
    found = rollouts.collect(9, DISCOUNT, torch.Generator().manual_seed(1))
    out = rollouts.model.train()(found.observations, found.begins, found.state)
    torch.testing.assert_close(out.policy.log_prob(found.actions), found.log_probs)
    torch.testing.assert_close(out.value, found.values)


def test_an_episode_that_was_cut_counts_what_was_to_come() -> None:
    rollouts, found = experienced([Counting(3, cut=True)], 4)
    model = rollouts.model
    seen = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
    beyond = model(seen, torch.tensor([[True, False, False, False]])).value[0, -1].item()
    assert found.rewards[0].tolist() == pytest.approx([1, 1, 1 + DISCOUNT * beyond, 1])


def test_advantages_are_the_sums_of_the_paper() -> None:
    torch.manual_seed(0)
    rewards, values, last = torch.randn(2, 6), torch.randn(2, 6), torch.randn(2)
    ends = torch.tensor([[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1]]).bool()
    nothing = torch.zeros(0)
    found = advantages(
        Experience(nothing, nothing, nothing, nothing, ends, rewards, values, last, None), DISCOUNT, TRACE
    )
    for row in range(2):
        for t in range(6):
            expected, weight = 0.0, 1.0
            for at in range(t, 6):
                following = float(values[row, at + 1] if at < 5 else last[row])
                following = 0.0 if ends[row, at] else following
                expected += weight * float(rewards[row, at] + DISCOUNT * following - values[row, at])
                weight *= DISCOUNT * TRACE
                if ends[row, at]:
                    break
            assert float(found[row, t]) == pytest.approx(expected, abs=1e-5)


class Recall(Counting):
    """Shows -1 or 1 at the first of three steps and 0 afterwards; the last action earns 1 if it tells which."""

    def __init__(self, number: int) -> None:
        super().__init__(3, cut=False)
        self.number, self.sign = number, 1

    def reset(self, seed: int) -> Any:
        super().reset(seed)
        self.sign = 1 if (seed // 7 + self.number) % 2 else -1
        return np.full(1, self.sign, dtype=np.float32)

    def step(self, action: Any) -> Moved:
        moved = super().step(action)
        right = moved.terminated and int(action) == (self.sign > 0)
        return moved._replace(observation=np.zeros(1, dtype=np.float32), reward=float(right))


def test_what_was_seen_at_the_beginning_is_told_at_the_end() -> None:
    worlds = [Recall(number) for number in range(8)]
    ppo = PPO(8 * 12 * 20, environments=8, length=12, optimizer=PPO(1).optimizer.replace(learning_rate=1e-2))
    torch.manual_seed(0)
    model = gtrxl_agent(Numbers(1), Choices(2), dim=16, depth=1, heads=2, hidden=16, segment=3, memory=0).build()
    learner = Learner(model, Rollouts(model, worlds), ppo)
    for number in range(ppo.updates):
        if number == ppo.updates - 4:
            learner.rollouts.finished.clear()
        learner.update(number)
    earned = [one.returned for one in learner.rollouts.finished]
    assert sum(earned) / len(earned) > 0.9  # one who guesses earns 0.5


def test_where_nothing_is_earned_nothing_breaks() -> None:
    world = Recall(0)
    world.step = lambda action: Counting.step(world, action)._replace(reward=0.0)  # type: ignore[method-assign]
    model = small(world).build()
    learner = Learner(model, Rollouts(model, [world]), PPO(500, environments=1, length=5, pieces=1, epochs=1))
    model.unit.fill_(1e-30)
    learned = learner.update(0)
    assert all(number == number for number in learned)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def untold(steps: int, returned: float | None) -> None:
    """Nobody watches."""


def test_a_run_that_is_resumed_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    ppo = PPO(4 * 2 * 5, environments=2, length=5, checkpoint_every=2)
    spec = small(Counting(7, cut=True))
    make = lambda: Counting(7, cut=True)  # noqa: E731
    whole = train_agent(spec, ppo, make, tmp_path / "whole", tell=untold)  # type: ignore[arg-type]
    assert whole.finished
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-000004")
    again = train_agent(spec, ppo, make, tmp_path / "stopped", resume=True, tell=untold)  # type: ignore[arg-type]
    for one, other in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    diaries = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "stopped")]
    assert [[row["loss"] for row in diary] for diary in diaries] == [[row["loss"] for row in diaries[0]]] * 2
    assert (tmp_path / "stopped" / "returns.png").stat().st_size > 1000
    loaded: Any = load_model(tmp_path / "whole")
    torch.testing.assert_close(loaded.unit, whole.model.unit)
    with pytest.raises(CheckpointError, match="a run already"):
        train_agent(spec, ppo, make, tmp_path / "whole", tell=untold)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"is another run: .*discount"):
        train_agent(spec, ppo.replace(discount=0.5), make, tmp_path / "whole", resume=True, tell=untold)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Pendulum-v1", "CliffWalking-v1"])
def test_it_learns_in_environments_of_numbers_and_of_choices(name: str) -> None:
    pytest.importorskip("gymnasium")
    worlds = [Environment(name) for _ in range(2)]
    model = small(worlds[0]).build()
    learner = Learner(model, Rollouts(model, worlds), PPO(20, environments=2, length=5))
    before = model.policy.linear.weight.clone()
    learner.update(0)
    assert not torch.equal(before, model.policy.linear.weight)


def test_acting_follows_the_seed() -> None:
    pytest.importorskip("gymnasium")
    world = Environment("CartPole-v1", (1, 3))
    model = small(world).build()
    first, second = (act(model, world, 2, seed=3) for _ in range(2))
    assert first == second
    assert all(one.returned == one.steps for one in first)


def test_environments_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("gymnasium")
    model = small(Environment("CartPole-v1", (1, 3))).build()
    with pytest.raises(ConfigError, match=r"sees Numbers\(width=2.* in CartPole-v1 that is Numbers\(width=4"):
        act(model, Environment("CartPole-v1"), 1)
    with pytest.raises(ConfigError, match="numbers are seen, counted from 0"):
        Environment("CartPole-v1", (4,))
    with pytest.raises(ConfigError, match="leave --hide out"):
        Environment("FrozenLake-v1", (0,))


def test_training_that_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="5 pieces"):
        PPO(100, environments=4, pieces=5).check()


def test_returns_are_drawn_over_the_last_episodes() -> None:
    rows = [{"return": 10.0, "episodes": 15}, {"return": 50.0, "episodes": 5}, {"return": 90.0, "episodes": 20}]
    assert smoothed(rows) == pytest.approx([10.0, 20.0, 90.0])
