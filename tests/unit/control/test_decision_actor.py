"""Acting: what the model is shown at each step, and what is reached beside what was asked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from decisions import small, steps

from formers import ConfigError, DataError, make
from formers.control.decision.actor import Actor
from formers.control.decision.asked import Reached, act_for, plot_reached
from formers.control.spaces import Choices, Numbers

CONTEXT = 5  # of the small model


@pytest.mark.parametrize("kind", ["choices", "unbounded"])
def test_an_action_is_what_the_last_steps_say(kind: str) -> None:
    """Up to the context that is the whole episode so far; beyond it, a window that knows nothing of what came before."""
    model = small(kind).float()
    seen = {n: t.float() if t.is_floating_point() else t for n, t in steps(model, 3, 9).items()}["observations"]
    rewards = torch.randn(3, 9, generator=torch.Generator().manual_seed(3))
    actor, wanted = Actor(model, torch.tensor([4.0, -1.0, 0.0])), torch.tensor([4.0, -1.0, 0.0])
    left, done = [wanted], []
    for t in range(9):
        done.append(actor.act(seen[:, t]))
        first = max(0, t + 1 - CONTEXT)
        at = torch.arange(first, t + 1).expand(3, -1)
        window = torch.stack(left[first:], 1), seen[:, first : t + 1], torch.stack(done[first:], 1), at
        with torch.no_grad():
            wished = model(*window).actions[:, -1]
        if kind == "choices":
            assert torch.equal(done[-1], wished.argmax(-1))
        else:
            torch.testing.assert_close(done[-1], wished)
        actor.earn(rewards[:, t])
        left.append(left[-1] - rewards[:, t])


def test_what_is_drawn_follows_the_temperature_and_the_seed() -> None:
    model = small("choices").float()

    def drawn(temperature: float, seed: int) -> torch.Tensor:
        return Actor(model, torch.zeros(400), temperature=temperature, seed=seed).act(
            torch.zeros(400, dtype=torch.int64)
        )

    assert torch.equal(drawn(1.0, 3), drawn(1.0, 3)) and not torch.equal(drawn(1.0, 3), drawn(1.0, 4))
    assert len(drawn(0.0, 3).unique()) == 1 and len(drawn(5.0, 3).unique()) == 4
    none = torch.zeros(1, 0, dtype=torch.int64)
    with torch.no_grad():
        share = model(torch.zeros(1, 1), torch.zeros(1, 1).long(), none, torch.zeros(1, 1).long()).actions.softmax(-1)
    torch.testing.assert_close(drawn(1.0, 3).bincount(minlength=4) / 400, share[0, 0], atol=0.08, rtol=0)


def test_no_step_beyond_the_horizon() -> None:
    model = small("unbounded").float()
    actor = Actor(model, torch.zeros(1))
    for _ in range(16):
        actor.act(torch.zeros(1, 3))
        actor.earn(torch.zeros(1))
    with pytest.raises(ValueError, match="from 0 to 15 here, and one is 16"):
        actor.act(torch.zeros(1, 3))


def model_for(name: str, **changes: Any) -> Any:
    pytest.importorskip("gymnasium")
    from formers.control.environment import Environment

    world = Environment(name)
    sizes = {"dim": 16, "depth": 1, "heads": 1, "context": 3, "horizon": 500, "return_scale": 100.0}
    torch.manual_seed(1)
    spaces = {"observation": world.observation, "action": world.action}
    return make("decision_transformer", **sizes | spaces | changes).build().eval()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_it_acts_in_a_real_environment(name: str) -> None:
    """Each episode is what it is alone, whoever acts beside it."""
    model = model_for(name)
    found = act_for(model, name, [10.0, 20.0], 2, seed=5)
    assert [each.asked for each in found] == [10.0, 20.0] and all(len(each.reached) == 2 for each in found)
    (alone,) = act_for(model, name, [20.0], 1, seed=5)
    assert abs(alone.reached[0] - found[1].reached[0]) < 1e-2
    assert name != "Pendulum-v1" or len(set(found[0].reached)) == 2  # episodes begin otherwise


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"action": Choices(3)}, r"actions are Choices\(count=3\), and those of CartPole-v1 are Choices\(count=2\)"),
        ({"observation": Numbers(5)}, "observations are"),
        ({"horizon": 400}, "up to 500 steps, and the model counts 400"),
    ],
)
def test_an_environment_that_does_not_fit_is_told(changes: dict[str, Any], wrong: str) -> None:
    model = model_for("CartPole-v1", **changes)
    with pytest.raises(ConfigError, match=wrong):
        act_for(model, "CartPole-v1", [1.0], 1)


def test_nothing_asked_is_told() -> None:
    with pytest.raises(ConfigError, match="nothing is asked for"):
        act_for(model_for("CartPole-v1"), "CartPole-v1", [], 3)


def test_the_picture_is_drawn_or_refused(tmp_path: Path) -> None:
    found = [Reached(1.0, (0.5, 1.5)), Reached(3.0, (2.0,))]
    assert found[0].mean == 1.0
    plot_reached(found, tmp_path / "made" / "reached.png", "here", [0.0, 1.0])
    assert (tmp_path / "made" / "reached.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        plot_reached(found, tmp_path / "file" / "reached.png", "here")
