"""Separable convolutions over real tokens."""

import pytest
import torch
from torch.nn import functional as F

from formers import ConfigError, SeparableConv
from formers.call import Call
from formers.places import Places
from formers.spec import Site, check


def layer(lengths: tuple[int, int], *, causal: bool):
    torch.manual_seed(0)
    return SeparableConv(6, lengths).build(Site(dim=4, causal=causal)).double()


def by_hand(built, x: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Each output as a sum over taps, one by one; x (T, M)."""

    def conv(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        length = weight.shape[1]
        first = length - 1 if causal else length - 1 - length // 2
        rows = []
        for t in range(len(x)):
            near = [(j, t - first + j) for j in range(length)]
            rows.append(sum(x[s] * weight[:, j] for j, s in near if 0 <= s < len(x)))
        return torch.stack(rows)

    units = F.relu(built.up(conv(x, built.up_conv.weight)))
    return built.down(conv(units, built.down_conv.weight))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [(3, 5), (1, 2), (4, 1)])
def test_it_is_the_sum_over_taps_of_real_tokens_wherever_padding_stands(lengths: tuple[int, int], causal: bool) -> None:
    built, x = layer(lengths, causal=causal), torch.randn(1, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(built(x, Call(Places.run(0, 9))).y[0], by_hand(built, x[0], causal=causal))
    real = torch.tensor([[False, True, True, False, True, True, True, False, True]])
    at = Places((real.cumsum(1) - 1).clamp(min=0), real)
    torch.testing.assert_close(built(x, Call(at)).y[real], by_hand(built, x[real], causal=causal))


def test_it_goes_on_from_its_last_inputs() -> None:
    built, x = layer((3, 4), causal=True), torch.randn(2, 9, 4, dtype=torch.float64)
    whole, state, parts, start = built(x, Call(Places.run(0, 9))).y, None, [], 0
    for part in x.split([1, 2, 5, 1], 1):
        out = built(part, Call(Places.run(start, part.shape[1])), state)
        state, start = out.state, start + part.shape[1]
        parts.append(out.y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


@pytest.mark.parametrize(
    ("spec", "told"), [(SeparableConv(0), "0 units"), (SeparableConv(4, (3, 0)), r"kernels of \(3, 0\)")]
)
def test_what_cannot_be_is_refused(spec: SeparableConv, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(spec, Site(dim=4), "conv")
