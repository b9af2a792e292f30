"""Environments and who acts in them while trajectories are recorded."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from formers import ConfigError, FormersError, make
from formers.control.environment import Environment, space_of
from formers.control.run import Note, write_note
from formers.control.spaces import Choices, Numbers
from formers.control.trajectories import Noisy, Random, mixed_skill, record
from formers.control.trajectories.minari import from_minari
from formers.control.trajectories.policies import scripted
from formers.control.trajectories.trained import trained_policy
from formers.data.chance import below
from formers.train import Run

gymnasium = pytest.importorskip("gymnasium")


def test_what_is_recorded_is_what_happened() -> None:
    """Played again from the recorded actions, the environment shows the recorded observations."""
    environment = Environment("CartPole-v1")
    told = record(environment, [Random(environment.action)], 3, seed=5)
    told.require("the record")
    again = record(environment, [Random(environment.action)], 3, seed=5)
    assert torch.equal(told.observations, again.observations) and torch.equal(told.actions, again.actions)
    assert not torch.equal(told.observations[0], record(environment, [Random(Choices(2))], 1, seed=6).observations[0])
    world = gymnasium.make("CartPole-v1").unwrapped
    world.reset(seed=0)
    for start, end in zip(told.starts.tolist(), told.ends.tolist(), strict=True):
        world.state = told.observations[start].double().numpy()
        world.steps_beyond_terminated = None
        for step in range(start, end):
            seen, reward, over, *_ = world.step(int(told.actions[step]))
            assert reward == told.rewards[step] and over == (step == end - 1)
            if not over:
                np.testing.assert_allclose(seen, told.observations[step + 1], atol=1e-4)
    assert told.terminated.all()


def test_an_episode_that_is_cut_did_not_end_by_itself() -> None:
    environment = Environment("Pendulum-v1")
    told = record(environment, [Random(environment.action)], 2)
    assert told.lengths.tolist() == [200, 200] and not told.terminated.any()
    assert told.actions.shape == (400, 1) and told.actions.abs().max() <= 2


@pytest.mark.parametrize(
    ("name", "reached"), [("CartPole-v1", 400.0), ("Pendulum-v1", -420.0), ("MountainCarContinuous-v0", 80.0)]
)
def test_scripts_are_good_and_noise_makes_them_worse(name: str, reached: float) -> None:
    environment = Environment(name)
    skills = mixed_skill(scripted(name, environment.action), environment.action)
    told = record(environment, [skills[0], skills[-1]], 4)
    good, bad = (told.returns[told.policy == number] for number in range(2))
    assert good.min() >= reached and bad.max() < good.min()
    assert [policy.name for policy in skills] == [
        "scripted", "scripted, 20% at random", "scripted, 40% at random", "scripted, 60% at random", "random"
    ]  # fmt: skip


def test_a_share_of_actions_is_at_random() -> None:
    action = Choices(10)
    always = SimpleNamespace(name="nine", begin=lambda: None, earn=lambda r: None, act=lambda o, c: np.asarray(9))
    chance, noisy = np.random.default_rng(0), Noisy(always, 0.5, action)
    drawn = np.array([int(noisy.act(np.zeros(1), chance)) for _ in range(2000)])
    assert 0.5 < (drawn == 9).mean() < 0.6 and set(drawn) == set(range(10))


def test_boxes_and_choices_are_known_and_nothing_else() -> None:
    spaces = gymnasium.spaces
    assert space_of(spaces.Discrete(5, start=3), "x") == Choices(5)
    assert space_of(spaces.Box(-1, 1, (2, 2)), "x") == Numbers(4, (-1.0,) * 4, (1.0,) * 4)
    assert space_of(spaces.Box(-np.inf, 1, (2,)), "x") == Numbers(2)
    with pytest.raises(ConfigError, match="what is seen in Blackjack-v1 is a Tuple"):
        Environment("Blackjack-v1")


def test_choices_that_do_not_begin_at_0_are_counted_from_0() -> None:
    class Shifted(gymnasium.ActionWrapper):
        def __init__(self, inner: Any) -> None:
            super().__init__(inner)
            self.action_space, self.given = gymnasium.spaces.Discrete(2, start=-1), []

        def action(self, action: int) -> int:
            self.given.append(action)
            return action + 1

    environment = Environment("CartPole-v1")
    environment._made = Shifted(environment._made)
    environment.reset(0)
    for action in (0, 1):
        environment.step(np.asarray(action))
    assert environment._made.given == [-1, 0]


@pytest.mark.parametrize("name", ["CartPoel-v1", "nomodule:Foo-v0", "ALE/Nothing-v5"])
def test_an_environment_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no environment"):
        Environment(name)


def test_without_gymnasium_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(FormersError, match=r"pip install 'formers\[control\]'"):
        Environment("CartPole-v1")


def test_nothing_to_record_is_told() -> None:
    environment = Environment("CartPole-v1")
    with pytest.raises(ConfigError, match="0 episodes"):
        record(environment, [Random(environment.action)], 0)
    with pytest.raises(ConfigError, match="no script is known for Acrobot-v1"):
        scripted("Acrobot-v1", Choices(3))


def test_a_trained_model_can_be_recorded(tmp_path: Path) -> None:
    environment = Environment("CartPole-v1")
    spaces = {"observation": environment.observation, "action": environment.action}
    spec = make("decision_transformer", **spaces, dim=16, depth=1, heads=1, horizon=500, context=4)
    Run(tmp_path / "dt").hold(spec.build(), spec, None)
    write_note(tmp_path / "dt", Note("decision_transformer", "CartPole-v1", {"highest": 500.0}))
    policy = trained_policy(tmp_path / "dt", "CartPole-v1")
    told = record(environment, [policy], 2)
    assert told.policies == ("dt",) and torch.equal(told.actions, record(environment, [policy], 2).actions)
    with pytest.raises(ConfigError, match="acts in CartPole-v1"):
        trained_policy(tmp_path / "dt", "Pendulum-v1")


def test_an_agent_records_what_it_does_when_it_acts(tmp_path: Path) -> None:
    from formers.control.agent import act, gtrxl_agent

    environment = Environment("CartPole-v1")
    torch.manual_seed(0)
    spec = gtrxl_agent(environment.observation, environment.action, dim=16, depth=1, heads=2, hidden=16)
    model = spec.build().eval()
    Run(tmp_path / "agent").hold(model, spec, None)
    write_note(tmp_path / "agent", Note("gtrxl", "CartPole-v1", {"hide": []}))
    policy, earned = trained_policy(tmp_path / "agent", "CartPole-v1"), []
    for seed in range(3):
        seen, over, total = environment.reset(int(below(1 << 31, 5, seed)[0])), False, 0.0
        policy.begin()
        while not over:
            seen, reward, terminated, truncated = environment.step(policy.act(seen, np.random.default_rng(0)))
            over, total = terminated or truncated, total + reward
        earned.append(total)
    assert earned == [one.returned for one in act(model, environment, 3, seed=5)]
    write_note(tmp_path / "agent", Note("gtrxl", "CartPole-v1", {"hide": [1]}))
    with pytest.raises(ConfigError, match="does not see all"):
        trained_policy(tmp_path / "agent", "CartPole-v1")


def test_without_minari_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(FormersError, match="pip install minari"):
        from_minari("D4RL/pen/human-v2")


@pytest.mark.filterwarnings("ignore")  # Minari asks for links to code
def test_minaris_data_sets_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari, _ = pytest.importorskip("minari"), pytest.importorskip("h5py")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    environment = Environment("CartPole-v1")
    own = record(environment, [Random(environment.action)], 3)
    buffers = []
    for start, end in zip(own.starts.tolist(), own.ends.tolist(), strict=True):
        over = [False] * (end - start - 1) + [True]
        seen = own.observations[[*range(start, end), end - 1]].numpy()  # and what the last step led to
        done, earned = own.actions[start:end].numpy(), own.rewards[start:end].tolist()
        buffers.append(EpisodeBuffer(None, None, None, seen, done, earned, over, [False] * len(over)))
    minari.create_dataset_from_buffers("cartpole/random-v0", buffers, env="CartPole-v1", algorithm_name="random")
    told = from_minari("cartpole/random-v0")
    told.require("Minari's")
    assert told.environment == "CartPole-v1" and told.terminated.all()
    assert told.observation == own.observation and told.action == own.action
    for name in ("observations", "actions", "rewards", "ends"):
        assert torch.equal(getattr(told, name), getattr(own, name))
    with pytest.raises(FormersError, match="no data set cartpole/none-v0"):
        from_minari("cartpole/none-v0")
