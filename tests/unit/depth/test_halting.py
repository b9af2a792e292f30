"""Adaptive computation time, by hand."""

import pytest
import torch

from formers import ACT, ConfigError
from formers.depth.halting import Halting
from formers.places import Places
from formers.spec import Site, check

AT = Places.run(0, 1)


def halted(p: list[float], chosen: torch.Tensor | None = None, **fields: object) -> tuple[Halting, torch.Tensor]:
    """A token's halting with these probabilities, its states the unit vectors, and the probabilities."""
    given = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    halting = Halting(ACT(ponder=1.0, **fields), torch.zeros(1, 1, len(p), dtype=torch.float64), AT, chosen)
    for t, state in enumerate(torch.eye(len(p), dtype=torch.float64)):
        halting.take(state[None, None], halting.weigh(given[t].view(1, 1)))
    return halting, given


@pytest.mark.parametrize(
    ("combine", "wanted"), [("interpolated", [0.126, 0.28, 0.3]), ("accumulated", [0.3, 0.4, 0.3])]
)
def test_states_are_combined_as_in_the_code_and_as_in_the_paper_on_act(combine: str, wanted: list[float]) -> None:
    halting, _ = halted([0.3, 0.4, 0.9], combine=combine)
    torch.testing.assert_close(halting.output[0, 0], torch.tensor(wanted, dtype=torch.float64))
    assert int(halting.steps) == int(halting.halts) == 3
    assert not halting.running.any()


def test_the_remainder_carries_the_gradient_and_the_number_of_steps_does_not() -> None:
    halting, p = halted([0.3, 0.4, 0.9, 0.5])
    cost = halting.cost()
    torch.testing.assert_close(cost, torch.tensor(3.3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(cost, p)
    assert gradient.tolist() == [-1, -1, 0, 0]


def test_who_runs_out_of_steps_has_no_remainder() -> None:
    halting, _ = halted([0.2, 0.2, 0.2])
    assert halting.running.all()
    assert (int(halting.steps), int(halting.halts), halting.cost().item()) == (3, 0, 3.0)
    torch.testing.assert_close(halting.output[0, 0], torch.tensor([0.128, 0.16, 0.2], dtype=torch.float64))


@pytest.mark.parametrize(("eps", "steps"), [(0.01, 2), (0.2, 1)])
def test_a_token_halts_above_one_minus_eps(eps: float, steps: int) -> None:
    assert int(halted([0.9, 0.9, 0.9], eps=eps)[0].steps) == steps


def test_an_earlier_choice_is_obeyed() -> None:
    first, _ = halted([0.3, 0.8, 0.1])
    again, _ = halted([0.3, 0.6, 0.2], chosen=first.halts)
    assert int(again.steps) == 2
    torch.testing.assert_close(again.output[0, 0], torch.tensor([0.09, 0.7, 0.0], dtype=torch.float64))


def test_padding_takes_no_step_and_costs_nothing() -> None:
    at = Places(torch.tensor([[0, 0]]), torch.tensor([[False, True]]))
    halting = Halting(ACT(ponder=1.0), torch.zeros(1, 2, 3), at, None)
    for p in (0.3, 0.9):
        halting.weigh(torch.full((1, 2), p))
    assert halting.steps.tolist() == [[0, 2]]
    torch.testing.assert_close(halting.cost(), torch.tensor(2.7))


def test_a_unit_begins_likely_to_halt_and_adds_up_in_full_precision() -> None:
    unit = ACT(bias=1.0).build(Site(dim=8))
    torch.testing.assert_close(unit(torch.zeros(1, 8)), torch.tensor([1.0]).sigmoid())
    assert unit.bfloat16()(torch.zeros(1, 8, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(("spec", "told"), [(ACT(eps=1.0), "eps is between"), (ACT(ponder=-1.0), "reward more steps")])
def test_what_cannot_be_is_refused(spec: ACT, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(spec, Site(dim=8), "act")
