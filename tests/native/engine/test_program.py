"""Programs that are not sound are refused when they are made: no run of one can read or write where it must not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from small import DIM, LEARNED, ROLLING, SLOPES, VOCAB, awake, decoder

from formers import Attention, ByHead, Canvas, Causal, FormersError, Local2D, Strided
from formers.native.engine.lower import lower, outline
from formers.native.engine.program import Cache, Program
from formers.native.engine.run import Engine

# The ints of `attend` in ROLLING: before the patterns, and where those of its heads begin.
HEADS, PLACES = (4, 2, 8, 8, 0, 32, 48), (11,) * 4
GAPS = decoder(Attention(4, pattern=Causal() & ByHead((Strided(2), Local2D(Canvas(4, 4, 1, (2, 2)), 1, 1)))))

NUMBERS = some.one_of(some.integers(-3, 70), some.sampled_from([2**31, -(2**31), 2**62, -(2**63), 2**63 - 1]))


def program(spec: Any = ROLLING) -> Program:
    return lower(awake(spec))


def changed(whole: Program, place: int, **fields: Any) -> Program:
    ops = list(whole.ops)
    ops[place] = ops[place]._replace(**fields)
    return replace(whole, ops=tuple(ops))


def of_name(whole: Program, name: str) -> int:
    return next(place for place, op in enumerate(whole.ops) if op.name == name)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("embed", {"writes": (999,)}, "register is 999"),
        ("embed", {"matrices": (999,)}, "weights are not in the program"),
        ("embed", {"matrices": ()}, "number of matrices is 0, and must be 1"),
        ("norm", {"vectors": (0, 99)}, "weights are not in the program"),
        ("linear", {"ints": (0, 9, 0, 0)}, "activation is 9"),
        ("linear", {"ints": (0, 0, 1, 0)}, "columns of the matrix"),
        ("linear", {"ints": (0, 0, 0, 2**62)}, "rows of the matrix"),
        ("attend", {"caches": (0, 0)}, "^$|number of"),
        ("attend", {"ints": (4, 3, 8, 8, 0, 32, 48)}, "share key heads evenly"),
        ("attend", {"ints": (*HEADS[:6], 49, *PLACES, 2, 0, 5)}, "the values is 49"),
        ("attend", {"ints": HEADS}, "ints before the patterns"),
        ("attend", {"ints": (*HEADS, 10, 11, 11, 11, 2, 0, 5)}, "place of a pattern is 10"),
        ("attend", {"ints": (*HEADS, 11, 11, 11, 14, 2, 0, 5)}, "place of a pattern is 14"),
        ("attend", {"ints": (*HEADS, 11, 11, 11, 12, 2, 0, 2**62)}, "size of a pattern is"),
        ("attend", {"ints": (*HEADS, *PLACES, 3, 0, 5)}, "number of words of a pattern is 3"),
        ("attend", {"ints": (*HEADS, *PLACES, 2, 10, 5)}, "a word of the pattern is 10"),
        ("attend", {"ints": (*HEADS, *PLACES, 1, 0)}, "ends within a word"),
        ("attend", {"ints": (*HEADS, *PLACES, 1, 8)}, "joins two"),
        ("attend", {"ints": (*HEADS, *PLACES, 4, 0, 5, 0, 5)}, "nothing joins"),
        ("attend", {"ints": (*HEADS, *PLACES, 4, 3, 5, 5, 1)}, "first of the cells is 5"),
        ("attend", {"ints": (*HEADS, *PLACES, 4, 3, 5, 4, 2)}, "number of cells is 2"),
        ("attend", {"ints": (*HEADS, *PLACES, 4, 6, 5, 4, 4)}, "blocks are shifted by is 4"),
        ("attend", {"ints": (*HEADS, *PLACES, 4, 7, 5, 2**62, 0)}, "rows of a list"),
        ("attend", {"ints": (*HEADS, *PLACES, 6, 7, 5, 1, 2, 0, 0)}, "begins again is 2"),
        ("attend", {"ints": (*HEADS, *PLACES, 6, 7, 5, 1, 0, 1, 1)}, "first run of a list is 1"),
        ("attend", {"ints": (*HEADS, *PLACES, 6, 7, 5, 1, 0, 0, 1)}, "runs of a row end is 1"),
        ("attend", {"ints": (*HEADS, *PLACES, 8, 7, 5, 1, 0, 0, 1, 3, 3)}, "end of a run is 3"),
        ("attend", {"ints": (*HEADS, *PLACES, 8, 7, 5, 1, 0, 0, 1, -1, 3)}, "first key of a run is -1"),
        ("attend", {"ints": (*HEADS, *PLACES, 10, 7, 5, 1, 0, 0, 2, 0, 3, 2, 4)}, "first key of a run is 2"),
        ("attend", {"ints": (*HEADS, *PLACES, 2, 0, 6)}, "capacity of the rolling caches"),
        ("attend", {"ints": (*HEADS, *PLACES, 0)}, "look back only so far"),
        ("attend", {"name": "burn"}, "no operation 'burn'"),
    ],
)
def test_an_operation_that_does_not_fit_is_refused(name: str, fields: dict[str, Any], words: str) -> None:
    whole = program()
    odd = changed(whole, of_name(whole, name), **fields)
    if fields == {"caches": (0, 0)}:
        Engine(odd).session().read([1, 2, 3])  # keys and values in one cache: no sense, and no harm
        return
    with pytest.raises(FormersError, match=words):
        Engine(odd)


@pytest.mark.parametrize(
    "fields",
    [
        {"widths": (0,) * 40},
        {"widths": (2**60,) * 40},
        {"caches": ()},
        {"caches": (Cache("rolling", 2, 5, 2**60),) * 4},
        {"caches": (Cache("rolling", 2, 2**61, 8),) * 4},
        {"vocab": 0},
        {"vocab": 41},
        {"length": -1},
        {"logits": -1},
        {"logits": 10**9},
        {"ops": ()},
        {"matrices": ()},
        {"vectors": ()},
    ],
)
def test_a_program_that_does_not_fit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FormersError):
        Engine(replace(program(), **fields))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(some.data())
def test_no_change_of_a_program_crashes(data: some.DataObject) -> None:
    """One number of one operation is changed: the program is refused, or runs, to whatever end."""
    whole = program(data.draw(some.sampled_from([ROLLING, LEARNED, SLOPES, GAPS])))
    place = data.draw(some.integers(0, len(whole.ops) - 1))
    field = data.draw(some.sampled_from(["reads", "writes", "ints", "matrices", "vectors", "caches"]))
    numbers = list(getattr(whole.ops[place], field))
    if numbers and data.draw(some.booleans()):
        numbers[data.draw(some.integers(0, len(numbers) - 1))] = data.draw(NUMBERS)
    else:
        numbers.append(data.draw(NUMBERS))
    try:
        session = Engine(changed(whole, place, **{field: tuple(numbers)})).session(2, threads=1)
        session.step([1, 2, 3, 4], [0, 0, 0, 1])
    except FormersError:
        return


def test_matrices_of_the_wrong_size_or_kind_are_refused() -> None:
    whole = program(SLOPES)
    first = whole.matrices[0]
    for odd in (
        replace(first, columns=first.columns + 64),
        replace(first, columns=-1),
        replace(first, type="int8"),
        replace(first, group=32),
        replace(first, data=first.data[:, :64]),
        replace(first, data=first.data[: VOCAB - 1]),
        replace(first, data=first.data.astype(np.float32)),
        replace(first, data=first.data.ravel()),
    ):
        with pytest.raises(FormersError):
            Engine(replace(whole, matrices=(odd, *whole.matrices[1:])))


def test_vectors_of_the_wrong_kind_are_refused() -> None:
    whole = program(SLOPES)
    for odd in (np.zeros(DIM), np.zeros((DIM, 1), np.float32), np.zeros(DIM - 1, np.float32)):
        with pytest.raises(FormersError):
            Engine(replace(whole, vectors=(whole.vectors[0], odd, *whole.vectors[2:]))).session().read([1])


def test_tied_weights_are_packed_once() -> None:
    whole = program(SLOPES)
    head, embedding = whole.ops[-1], whole.ops[0]
    assert head.matrices == embedding.matrices
    assert len(whole.matrices) == 1 + 2 * 4


def test_registers_are_had_again() -> None:
    assert len(program(SLOPES).widths) < 10


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_a_model_without_weights_is_lowered_to_random_ones(dtype: str) -> None:
    with torch.device("meta"):
        model = ROLLING.build()
    logits = Engine(lower(model, dtype)).session().read([1, 2, 3])
    assert np.isfinite(logits).all() and logits.std() > 0


@pytest.mark.parametrize(("dtype", "close"), [("bf16", 0.1), ("int8", 0.1), ("int4", 1.0)])
def test_smaller_weights_give_nearly_the_same(dtype: str, close: float) -> None:
    model = awake(LEARNED)
    exact, rough = (Engine(lower(model, kind)).session().step(range(20), [0] * 20) for kind in ("fp32", dtype))
    assert 0 < np.abs(exact - rough).max() < close * np.abs(exact).max()


def test_kernels_agree() -> None:
    whole, tokens = program(), list(range(20))
    plain = Engine(whole, "plain").session().step(tokens, [0] * 20)
    for kernel in ("avx2", "avx512", "vnni", "amx"):
        try:
            engine = Engine(whole, kernel)
        except FormersError as error:
            assert "does not run the kernel" in str(error)
            continue
        np.testing.assert_allclose(engine.session().step(tokens, [0] * 20), plain, atol=2e-5)


def test_a_kernel_that_there_is_not_is_refused() -> None:
    with pytest.raises(FormersError, match="does not run the kernel 'abacus'"):
        Engine(program(), "abacus")


def test_weights_of_an_unknown_type_are_refused() -> None:
    with pytest.raises(FormersError, match="weights can be fp32, bf16, int8, int4, not 'fp8'"):
        outline(awake(SLOPES), "fp8")
