"""Native attention over sorted chunks against its meaning, on every instruction set that this machine has."""

from ctypes import c_void_p

import pytest
import torch
from dense_chunks import Case, attend, random_case

from formers.native import Rules, backward, forward, refuses
from formers.native.library import loaded

pytestmark = pytest.mark.usefixtures("built")

PLAIN = Rules(
    chunk=16, before=1, after=0, wrap=False, reach=0, same=False, once=True, causal=True, self_bias=-1e5, scale=0.125
)
RULES = {
    "lsh": {},
    "lsh-two-sided": {"causal": False, "after": 1},
    "several-times": {"once": False, "self_bias": 0.0},
    "wrap": {"wrap": True, "once": False, "self_bias": 0.0},
    "wrap-wide": {"wrap": True, "once": False, "self_bias": -2.0, "before": 2, "after": 2, "causal": False},
    "own-chunk": {"before": 0, "self_bias": 0.0},
    "reach": {"reach": 10},
    "same": {"same": True},
    "strict": {"same": True, "reach": 12, "before": 2},
    "looks-ahead": {"same": True, "reach": 20, "before": 0, "after": 2, "causal": False},
    "long-chunks": {"chunk": 70, "after": 1},
    "one-chunk": {"chunk": 512},
}
SHAPES = {
    "even": (192, 64, 64, 3),
    "odd": (201, 17, 8, 5),
    "short": (7, 8, 8, 2),
    "wide-values": (150, 24, 40, 1),
    "one-token": (1, 8, 8, 4),
}


def arguments(case: Case) -> tuple:
    return case.order, case.slot, case.bucket, case.pos, case.real


def upstream(case: Case) -> torch.Tensor:
    return torch.randn(case.v.shape, generator=torch.Generator().manual_seed(5))


def check(case: Case, rules: Rules, kernel: str) -> None:
    q, k, v = (t.double().requires_grad_() for t in (case.q, case.k, case.v))
    want, want_lse = attend(case, rules, q, k, v)
    grad = upstream(case)
    want_grads = torch.autograd.grad(want, (q, k, v), grad.double())
    out, lse = forward(case.q, case.k, case.v, *arguments(case), rules, kernel=kernel)
    torch.testing.assert_close(out.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=1e-6)
    grads = backward(grad, out, lse, case.q, case.k, case.v, *arguments(case), rules, kernel=kernel)
    scale = max(float(expected.abs().max()) for expected in want_grads)  # where q's and k's own would be zero
    for got, expected in zip(grads, want_grads, strict=True):
        torch.testing.assert_close(got.double(), expected, atol=1e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("changes", RULES.values(), ids=RULES.keys())
def test_as_the_dense_meaning(changes: dict, shape: tuple, kernel: str) -> None:
    check(random_case(*shape, padded=shape[0] > 1), PLAIN._replace(**changes), kernel)


def test_without_padding_and_buckets(kernel: str) -> None:
    case = random_case(100, 16, 16, 2)
    check(case, PLAIN, kernel)
    with_buckets = forward(case.q, case.k, case.v, *arguments(case), PLAIN)
    without = forward(case.q, case.k, case.v, case.order, case.slot, None, case.pos, None, PLAIN)
    torch.testing.assert_close(with_buckets, without, rtol=0, atol=0)


def test_query_that_meets_only_itself_several_times(kernel: str) -> None:
    """The log-sum-exp near -1e5 cannot tell how often: the backward pass must find out."""
    check(random_case(60, 16, 16, 4), PLAIN._replace(once=False), kernel)
    check(random_case(60, 16, 16, 3), PLAIN._replace(once=False, wrap=True, same=True), kernel)


def test_a_small_bias_is_no_sign_of_meeting_only_oneself(kernel: str) -> None:
    """Scores far below the bias are of other keys."""
    case = random_case(60, 16, 16, 3)
    low = Case(case.q * 8, -case.k, *(case.v, case.order, case.slot, case.bucket, case.pos, case.real))
    check(low, PLAIN._replace(once=False, wrap=True, self_bias=-3.0), kernel)


def test_nothing_to_meet_gives_zero() -> None:
    case = random_case(40, 16, 16, 2)
    barred = (*arguments(case)[:4], torch.zeros(2, 40, dtype=torch.bool))
    out, lse = forward(case.q, case.k, case.v, *barred, PLAIN)
    assert not out.any()
    assert lse.isneginf().all()
    for grad in backward(upstream(case), out, lse, case.q, case.k, case.v, *barred, PLAIN):
        assert not grad.any()


@pytest.mark.parametrize("changes", [{}, {"wrap": True, "once": False}, {"before": 2, "after": 2}], ids=str)
def test_threads_do_not_change_a_bit(changes: dict) -> None:
    case, rules = random_case(4500, 16, 16, 2, batch=1), PLAIN._replace(**changes)
    results = []
    for threads in (1, 2, 3):
        out, lse = forward(case.q, case.k, case.v, *arguments(case), rules, threads=threads)
        given = (upstream(case), out, lse, case.q, case.k, case.v, *arguments(case), rules)
        results.append((out, lse, *backward(*given, threads=threads)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


def test_seams_between_ranges(kernel: str) -> None:
    """Long enough for several ranges of chunks in a head, whose halos are added afterwards."""
    check(random_case(2500, 8, 8, 2, batch=1, heads=1), PLAIN._replace(before=1, after=1), kernel)
    check(random_case(2500, 8, 8, 2, batch=1, heads=1), PLAIN._replace(once=False, wrap=True, self_bias=0.0), kernel)


def test_expanded_and_strided_inputs() -> None:
    case = random_case(120, 16, 16, 2)
    order, slot, bucket = (t[:1, :1] for t in (case.order, case.slot, case.bucket))
    swapped = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (case.q, case.k, case.v)]
    shared = (order.long(), slot.expand(2, 2, -1, -1), bucket, case.pos[:1], None)
    full = [t.expand(2, 2, -1, -1).contiguous() for t in (order, slot, bucket)]
    want = forward(case.q, case.k, case.v, *full, case.pos, None, PLAIN)
    got = forward(*swapped, *shared, PLAIN)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    one = torch.ones(1).expand_as(case.v)
    want_grads = backward(one.contiguous(), *want, case.q, case.k, case.v, *full, case.pos, None, PLAIN)
    torch.testing.assert_close(backward(one, *got, *swapped, *shared, PLAIN), want_grads, rtol=0, atol=0)


def test_what_is_no_number_stays_none(kernel: str) -> None:
    case = random_case(64, 16, 16, 1)
    case.q[0, 0, 40] = torch.nan
    out, _ = forward(case.q, case.k, case.v, *arguments(case), PLAIN, kernel=kernel)
    assert out[0, 0, 40].isnan().all()
    assert out[1].isfinite().all()


def test_exponential_is_within_an_ulp_and_a_bit(kernel: str) -> None:
    x = torch.cat([torch.linspace(-87.2, 0, 1 << 18), torch.linspace(-2, 2, 1 << 16), torch.linspace(0, 88, 1 << 16)])
    y = torch.empty_like(x)
    assert loaded().formers_exponential(_address(x), _address(y), x.numel(), kernel.encode()) == 0
    exact = x.double().exp()
    ulp = torch.nextafter(exact.float(), torch.tensor(torch.inf)).double() - exact.float().double()
    assert ((y.double() - exact).abs() / ulp).max() < 1.1
    edges = torch.tensor([-torch.inf, -1e30, -1e5, -88.0, 0.0, -0.0, torch.nan, 1.0] * 2)
    got = torch.empty_like(edges)
    loaded().formers_exponential(_address(edges), _address(got), 16, kernel.encode())
    want = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, torch.nan, torch.e] * 2)
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1.2e-7, atol=0)


def _address(t: torch.Tensor) -> c_void_p:
    return c_void_p(t.data_ptr())


@pytest.mark.parametrize(
    ("changes", "rules", "word"),
    [
        ({"dtype": torch.float64}, {}, "float32"),
        ({"device": "meta"}, {}, "CPU"),
        ({}, {"wrap": True}, "wrap"),
    ],
    ids=["dtype", "device", "wrap-once"],
)
def test_refuses_in_words(changes: dict, rules: dict, word: str) -> None:
    q = torch.zeros(1, 1, 8, 8, **changes)
    why = refuses(q, q, q, PLAIN._replace(**rules))
    assert why is not None
    assert word in why


def test_accepts_what_it_can_run() -> None:
    q = torch.zeros(1, 1, 8, 8)
    assert refuses(q, q, torch.zeros(1, 1, 8, 3), PLAIN) is None
