"""Sparse Sinkhorn attention against dense attention, what it learns and draws, and what it refuses."""

import pytest
import torch
from sinkhorn_forms import CAUSAL, DIM, FORMS, TWO_SIDED, layer, whole
from torch import Tensor

from formers.attention.oracle import attend_dense
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.sinkhorn_causal import CausalSinkhornLayer
from formers.attention.sorting import sinkhorn
from formers.spec.core import Site

pytestmark = pytest.mark.usefixtures("float64")


# The layers against dense attention


def hard(module, matrix: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the layer sort by this matrix (N, N)."""
    if isinstance(module, CausalSinkhornLayer):
        monkeypatch.setattr(
            "formers.attention.sinkhorn_causal.sinkhorn_causal",
            lambda scores, steps, allowed, before=None: (
                matrix.expand_as(scores) * allowed,
                torch.zeros(*scores.shape[:2], steps, scores.shape[3]),
            ),
        )
    else:
        monkeypatch.setattr(
            "formers.attention.sinkhorn.sinkhorn", lambda scores, steps, allowed: matrix.expand_as(scores)
        )


def dense(module, x: Tensor, mask: Tensor) -> Tensor:
    """The same projections, dense attention over the pairs of mask (T, T)."""
    q = module.projection.queries(x)
    k, v = module.projection.keys_values(x)
    return module.projection.output(attend_dense(q, k, v, mask))


def shown(length: int, sorted_to: list[list[int]], block: int = 4, causal: bool = False) -> Tensor:
    """Who sees whom if block i sees the blocks sorted_to[i]."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(length):
            mask[i, j] = j // block in sorted_to[i // block] and (j <= i or not causal)
    return mask


@pytest.mark.parametrize("length", [16, 14, 13])
def test_a_permutation_is_dense_attention_over_permuted_blocks(length: int, monkeypatch) -> None:
    module, x = layer("two-sided"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[2, 3, 1, 0]], monkeypatch)
    torch.testing.assert_close(whole(module, x), dense(module, x, shown(length, [[0, 2], [1, 3], [2, 1], [3, 0]])))


@pytest.mark.parametrize("length", [16, 14, 13])
def test_a_cut_permutation_is_dense_attention_to_the_blocks_it_leaves(length: int, monkeypatch) -> None:
    module, x = layer("cut"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[2, 3, 1, 0]], monkeypatch)
    torch.testing.assert_close(whole(module, x), dense(module, x, shown(length, [[2, 3]] * 4)))


@pytest.mark.parametrize("length", [16, 14, 13])
def test_earlier_blocks_sorted_in_are_dense_attention_to_them(length: int, monkeypatch) -> None:
    module, x = layer("causal"), torch.randn(2, length, DIM)
    hard(module, torch.eye(4)[[0, 0, 1, 0]], monkeypatch)
    seen = shown(length, [[0], [1, 0], [2, 1], [3, 0]], causal=True)
    torch.testing.assert_close(whole(module, x), dense(module, x, seen))


@pytest.mark.parametrize("form", list(FORMS))
def test_one_block_is_plain_attention(form: str) -> None:
    module, x = layer(form), torch.randn(2, 3, DIM)
    mask = torch.ones(3, 3, dtype=torch.bool)
    torch.testing.assert_close(whole(module, x), dense(module, x, mask.tril() if form == "causal" else mask))


@pytest.mark.parametrize("form", list(FORMS))
def test_values_come_from_values(form: str) -> None:
    """Without values there is no output, whatever the keys."""
    module = layer(form)
    with torch.no_grad():
        for part in (module.projection.v_proj, module.projection.out_proj):
            part.bias.zero_()
        module.projection.v_proj.weight.zero_()
    assert not whole(module, torch.randn(2, 15, DIM)).any()


def test_soft_blocks_are_mixed_by_one_matrix_for_keys_and_values() -> None:
    """Written out for one head and three whole blocks."""
    module = SinkhornAttention(1, block=2).build(TWO_SIDED).eval()
    x = torch.randn(1, 6, DIM)
    q, (k, v) = module.projection.queries(x)[0, 0], (t[0, 0] for t in module.projection.keys_values(x))
    means = x[0].view(3, 2, DIM).sum(1) / 2**0.5
    scores = module.network(means[None], means[None])[0, 0] / 0.75
    matrix = sinkhorn(scores, 8, ~torch.eye(3, dtype=torch.bool))
    rows = []
    for t in range(6):
        i = t // 2
        keys = torch.cat([sum(matrix[i, j] * k[2 * j : 2 * j + 2] for j in range(3)), k[2 * i : 2 * i + 2]])
        values = torch.cat([sum(matrix[i, j] * v[2 * j : 2 * j + 2] for j in range(3)), v[2 * i : 2 * i + 2]])
        rows.append((keys @ q[t] * DIM**-0.5).softmax(0) @ values)
    torch.testing.assert_close(whole(module, x), module.projection.output(torch.stack(rows)[None, None]))


# Learning and chance


@pytest.mark.parametrize("form", list(FORMS))
def test_gradients_are_those_of_finite_differences(form: str) -> None:
    spec, site = FORMS[form]
    module = spec.replace(heads=2, block=2, iterations=2).build(Site(dim=4, causal=site.causal))
    mask = torch.tensor([[True] * 7, [False] * 2 + [True] * 5])
    x = torch.randn(2, 7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whole(module, x, mask)[mask], (x,))


@pytest.mark.parametrize("form", list(FORMS))
def test_every_parameter_learns(form: str) -> None:
    module = layer(form)
    whole(module, torch.randn(2, 30, DIM)).square().sum().backward()
    asleep = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert asleep == []


@pytest.mark.parametrize("form", list(FORMS))
def test_chance_is_the_seeds_and_only_in_training(form: str) -> None:
    module, x = layer(form), torch.randn(2, 30, DIM)
    torch.testing.assert_close(whole(module, x, seed=1), whole(module, x, seed=2), rtol=0, atol=0)
    module.train()
    torch.testing.assert_close(whole(module, x, seed=1), whole(module, x, seed=1), rtol=0, atol=0)
    assert not torch.equal(whole(module, x, seed=1), whole(module, x, seed=2))
    quiet = layer(form, noise=0.0).train()
    torch.testing.assert_close(whole(quiet, x, seed=1), whole(quiet, x, seed=2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "site", "said"),
    [
        ({"block": 0}, CAUSAL, "a block must hold"),
        ({"iterations": 0}, CAUSAL, "without an iteration"),
        ({"temperature": 0.0}, CAUSAL, "must be positive"),
        ({"temperature": float("nan")}, CAUSAL, "must be positive"),
        ({"noise": -1.0}, CAUSAL, "must not be negative"),
        ({"cut": 0}, TWO_SIDED, "leaves no sorted block"),
        ({"cut": 2}, CAUSAL, "must not see the future"),
        ({"heads": 5}, CAUSAL, "does not split"),
        ({"dropout": 1.5}, CAUSAL, "dropout"),
        ({}, TWO_SIDED.replace(streaming=True), "cannot be continued"),
    ],
)
def test_bad_input_is_refused_with_a_mend(changes: dict, site: Site, said: str) -> None:
    problems = list(SinkhornAttention(3, block=4).replace(**changes).problems(site))
    assert len(problems) == 1
    assert said in problems[0][0] and problems[0][1]


def test_good_input_is_not_refused() -> None:
    assert [list(spec.problems(site)) for spec, site in FORMS.values()] == [[], [], []]
    assert list(SinkhornAttention(3).problems(CAUSAL.replace(streaming=True))) == []
