"""An agent steps as it passes, sees nothing of other episodes, and is refused where it would."""

from typing import Any

import pytest
import torch
from torch import Tensor

from formers import Attention, Block, Causal, ConfigError, Segments, stack
from formers.control.agent import Agent, AgentLayer, Categorical, Gaussian, gtrxl_agent
from formers.control.agent.model import where
from formers.control.spaces import Choices, Numbers
from formers.layer_inputs import unmade

SEEN = Numbers(3)


@pytest.fixture(autouse=True)
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def awake(spec: Agent) -> AgentLayer:
    torch.manual_seed(0)
    model = spec.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def model() -> AgentLayer:
    return awake(gtrxl_agent(SEEN, Choices(4), dim=12, depth=2, heads=2, hidden=16, segment=3, memory=4))


def told(out: Any) -> Tensor:
    return torch.cat([out.policy.logs, out.value[..., None]], -1)


BEGINS = torch.tensor(
    [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
).bool()


def test_an_episode_begins_at_the_next_segment() -> None:
    begins = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 1, 1, 0]]).bool()
    pos, episode = where(begins, torch.tensor([0, 5]), torch.tensor([0, 3]), 4)
    assert pos.tolist() == [[0, 1, 2, 4, 5], [5, 6, 8, 12, 13]]
    assert episode.tolist() == [[1, 1, 1, 2, 2], [3, 3, 4, 5, 5]]


@pytest.mark.parametrize("cuts", [list(range(1, 15)), [4, 5, 11]], ids=str)
def test_stepping_equals_one_pass(model: AgentLayer, cuts: list[int]) -> None:
    observations, state, pieces = torch.randn(2, 15, 3), None, []
    with torch.no_grad():
        for start, stop in zip([0, *cuts], [*cuts, 15], strict=True):
            out = model(observations[:, start:stop], BEGINS[:, start:stop], state)
            state = out.state
            pieces.append(told(out))
        torch.testing.assert_close(torch.cat(pieces, 1), told(model(observations, BEGINS)))


def test_each_episode_is_as_if_it_were_alone(model: AgentLayer) -> None:
    observations = torch.randn(2, 15, 3)
    with torch.no_grad():
        whole = told(model(observations, BEGINS))
        for row, start, stop in ((0, 0, 5), (0, 5, 14), (0, 14, 15), (1, 2, 3), (1, 3, 15)):
            alone = model(observations[row : row + 1, start:stop], BEGINS[row : row + 1, start:stop])
            torch.testing.assert_close(whole[row : row + 1, start:stop], told(alone))


def test_what_came_before_in_the_episode_is_remembered(model: AgentLayer) -> None:
    observations = torch.randn(1, 8, 3, requires_grad=True)
    begins = torch.tensor([[1, 0, 1, 0, 0, 0, 0, 0]]).bool()
    (slope,) = torch.autograd.grad(model(observations, begins).value[0, -1], observations)
    assert not slope[0, :2].any()
    assert slope[0, 2:].any(-1).all()


def test_without_a_memory_a_step_sees_itself_alone() -> None:
    blind = awake(gtrxl_agent(SEEN, Choices(2), dim=12, depth=2, heads=2, hidden=16, segment=1, memory=0))
    observations = torch.randn(1, 6, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(blind(observations, BEGINS[:1, :6]).value[0, -1], observations)
    assert slope[0, -1].any()
    assert not slope[0, :-1].any()


def test_keys_are_made_anew_when_weights_have_changed(model: AgentLayer) -> None:
    observations, begins = torch.randn(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool)
    with torch.no_grad():
        state = model(observations[:, :3], begins[:, :3]).state
        for block in model.stack.blocks:
            block.sublayers[0].projection.k_proj.weight.mul_(3)
        stale = told(model(observations[:, 3:], begins[:, 3:], state))
        fresh = told(model(observations[:, 3:], begins[:, 3:], unmade(state)))
        model.train()
        torch.testing.assert_close(fresh, told(model(observations[:, 3:], begins[:, 3:], state)))
    assert not torch.equal(stale, fresh)


def test_policy_and_value_begin_alike_everywhere() -> None:
    out = gtrxl_agent(SEEN, Choices(4), dim=12, heads=2, hidden=16).build()(torch.randn(2, 5, 3), BEGINS[:, :5])
    torch.testing.assert_close(out.policy.logs.exp(), torch.full((2, 5, 4), 0.25))
    torch.testing.assert_close(out.value, torch.zeros(2, 5))


def test_another_unit_of_values_is_no_other_value(model: AgentLayer) -> None:
    observations = torch.randn(2, 15, 3)
    before = model(observations, BEGINS).value
    model.measure(torch.tensor([200.0, -300.0]))
    assert float(model.unit) > 50
    torch.testing.assert_close(model(observations, BEGINS).value, before)


def test_observations_are_read_by_their_mean_and_deviation(model: AgentLayer) -> None:
    first, second = torch.randn(2, 7, 3) * torch.tensor([1, 50, 1e-3]) + 4, torch.randn(4, 5, 3)
    for part in (first, second):
        model.observations.measure(part)
    every = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    scaled = (second - every.mean(0)) / every.std(0, unbiased=False)
    read = model.observations(second)
    reader = model.observations
    torch.testing.assert_close(read, reader.down(torch.relu(reader.up(scaled))))


def test_policies_are_torchs_distributions() -> None:
    logits, actions = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    ours, theirs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    mean, log, numbers = torch.randn(2, 3, 4), torch.randn(4), torch.randn(2, 3, 4)
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, log.exp()), 1)
    torch.testing.assert_close(Gaussian(mean, log).log_prob(numbers), normal.log_prob(numbers))
    torch.testing.assert_close(Gaussian(mean, log).entropy(), normal.entropy())


def test_samples_are_as_likely_as_they_are_said_to_be() -> None:
    chance = torch.Generator().manual_seed(0)
    drawn = Categorical(torch.tensor([0.5, 0.3, 0.2]).log().expand(1, 20_000, 3)).sample(chance)
    torch.testing.assert_close(drawn[0].bincount() / 20_000, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)
    numbers = Gaussian(torch.full((1, 20_000, 1), 3.0), torch.tensor([2.0]).log()).sample(chance)
    torch.testing.assert_close(
        torch.stack([numbers.mean(), numbers.std()]), torch.tensor([3.0, 2.0]), atol=0.05, rtol=0
    )


def test_numbers_are_done_within_their_bounds() -> None:
    space = Numbers(2, (-2.0, 0.0), (2.0, 1.0))
    head = gtrxl_agent(Choices(5), space, dim=12, heads=2, hidden=16).build().policy
    outward = head.outward(torch.tensor([[0.0, 0.0], [0.5, -0.5], [9.0, -9.0]]))
    torch.testing.assert_close(outward, torch.tensor([[0.0, 0.5], [1.0, 0.25], [2.0, 0.0]]))
    free = gtrxl_agent(Choices(5), Numbers(1), dim=12, heads=2, hidden=16).build().policy
    torch.testing.assert_close(free.outward(torch.tensor([[7.0]])), torch.tensor([[7.0]]))


def test_choices_can_be_observed() -> None:
    reads = awake(gtrxl_agent(Choices(5), Choices(2), dim=12, heads=2, hidden=16))
    out = reads(torch.randint(5, (2, 15)), BEGINS)
    assert out.value.shape == (2, 15)
    with pytest.raises(ValueError, match="observations are elements of"):
        reads(torch.randint(5, (2, 15, 1)), BEGINS)


def test_attention_across_episodes_is_refused() -> None:
    block = Block((Attention(2, pattern=Causal() & Segments(3, 4)),))
    with pytest.raises(ConfigError, match="earlier episodes"):
        Agent("forgetful", SEEN, Choices(2), 12, stack(block, times=2)).build()
