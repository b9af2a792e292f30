"""Sums in place, of tensors of the same precision and of narrower ones."""

import pytest
import torch

from formers.reversible import sums
from formers.reversible.sums import add_to, summed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_in_pieces_is_the_sum(dtype: torch.dtype, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "WIDENED", 2 * 5 * 3)  # of 14 tokens 3 at a time, and 2 are left
    generator = torch.Generator().manual_seed(0)
    total, more = (torch.randn(2, 20, 5, generator=generator)[:, 3:17] for _ in range(2))
    more = more.to(dtype)
    want = total + sign * more
    assert add_to(total, more, sign) is total
    assert torch.equal(total, want)


def test_the_first_of_several_is_copied_and_widened() -> None:
    first, second = torch.full((1, 2, 3), 256.0, dtype=torch.bfloat16), torch.ones(1, 2, 3, dtype=torch.bfloat16)
    total = summed(summed(None, first, alone=False), second, alone=False)
    assert total.dtype == torch.float32 and bool((total == 257).all()) and bool((first == 256).all())
    assert summed(None, first, alone=True) is first
