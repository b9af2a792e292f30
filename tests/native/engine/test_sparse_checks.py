"""Programs of sparse layers and of sums that are not sound are refused when they are made, whatever is wrong with them."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from parts import Emit, built, program
from test_sparse_parts import heads_of, sublayer

from formers import GLU, FormersError, KernelAttention, Positive, Switch
from formers.attention import MultConv
from formers.attention.sparse_project import Modular
from formers.native.engine.program import Cache, Program
from formers.native.engine.run import Engine
from formers.recurrence import SRUBranch
from formers.sparse import SparseFF, SwitchFF

HUGE = [2**31, -(2**31), 2**62, -(2**63), 2**63 - 1]
NUMBERS = some.one_of(some.integers(-3, 70), some.sampled_from([96, 192, 4096, *HUGE]))
PARTS: dict[str, tuple[Any, Any, int]] = {
    "sparse_feedforward": (SparseFF(hidden=64, block=8, rank=3), sublayer, 32),
    "experts": (SwitchFF(hidden=64, experts=4), sublayer, 32),
    "switch_experts": (Switch(GLU(24), 4, top_k=2), sublayer, 32),
    "multiplicative": (MultConv(), heads_of, 96),
    "module_convolution": (MultConv(values="fixed"), heads_of, 96),
    "modular": (Modular(width=3), heads_of, 96),
    "recurrent": (SRUBranch(width=8), sublayer, 32),
    "feature_attend": (KernelAttention(4, features=Positive(20), gate=True), sublayer, 32),
}


@cache
def sound(name: str, dtype: str = "fp32") -> Program:
    spec, emitted, count = PARTS[name]
    emit: Emit = emitted(built(spec, dtype, dim=32))
    return program(emit, 32, count, dtype)


def place_of(whole: Program, name: str) -> int:
    return max(place for place, op in enumerate(whole.ops) if op.name == name)


def changed(whole: Program, place: int, **fields: Any) -> Program:
    ops = list(whole.ops)
    ops[place] = ops[place]._replace(**fields)
    return replace(whole, ops=tuple(ops))


@pytest.mark.parametrize("name", PARTS)
def test_they_run_as_they_are(name: str) -> None:
    for dtype in ("fp32", "bf16", "int8", "int4"):
        assert np.isfinite(Engine(sound(name, dtype)).session().read([0, 1, 2])).all()


@pytest.mark.parametrize(
    ("name", "number", "value", "words"),
    [
        ("sparse_feedforward", 0, 9, "number of rows of units"),
        ("sparse_feedforward", 0, 2**62, "units of a block is"),
        ("sparse_feedforward", 1, 24, "padded to a multiple of 16"),
        ("sparse_feedforward", 1, 32, "width of the controller's blocks"),
        ("sparse_feedforward", 2, 0, "number of pieces"),
        ("sparse_feedforward", 2, 2, "width of the pieces' sums"),
        ("sparse_feedforward", 3, 2, "whether to add"),
        ("experts", 0, 17, "number of rows of units"),
        ("experts", 0, 2**62, "units of an expert is"),
        ("switch_experts", 0, 25, "as many rows as they need"),
        ("switch_experts", 0, 48, "units that an expert writes by"),
        ("switch_experts", 1, 5, "experts that a token meets is 5"),
        ("switch_experts", 1, 1, "width of what they make"),
        ("switch_experts", 2, 99, "activation is 99"),
        ("multiplicative", 0, 3, "width of the gates"),
        ("multiplicative", 1, 8, "width of a panel"),
        ("multiplicative", 1, 32, "width of a block"),
        ("multiplicative", 2, 65, "number of pieces"),
        ("module_convolution", 0, 5, "does not split into the modules"),
        ("module_convolution", 1, 32, "inputs of a module"),
        ("module_convolution", 2, 4, "number of blocks"),
        ("module_convolution", 3, 2, "size of a slot"),
        ("module_convolution", 5, 2, "middle module|width of a kernel"),
        ("module_convolution", 5, 2**62, "width of a kernel"),
        ("modular", 0, 5, "does not split into the modules"),
        ("modular", 0, 2**62, "number of modules"),
        ("feature_attend", 0, 2, "number of panels"),
        ("feature_attend", 0, 2**62, "number of heads"),
        ("feature_attend", 1, 4, "size of a panel"),
        ("feature_attend", 1, -(2**63), "width of a head"),
        ("feature_attend", 2, 4, "kind of the features"),
        ("feature_attend", 2, 1, "room for features"),
        ("feature_attend", 3, 2, "brought to length 1"),
        ("feature_attend", 4, 40, "width of all panels"),
        ("feature_attend", 4, 2**62, "number of directions"),
        ("feature_attend", 5, 24, "multiple of 16 wide"),
        ("feature_attend", 5, 16, "number of panels"),
        ("feature_attend", 6, 65, "queries"),
        ("feature_attend", 7, 2**62, "keys"),
        ("feature_attend", 8, -1, "values"),
    ],
)
def test_a_wrong_number_is_named(name: str, number: int, value: int, words: str) -> None:
    whole = sound(name)
    place = place_of(whole, name)
    ints = list(whole.ops[place].ints)
    ints[number] = value
    with pytest.raises(FormersError, match=words):
        Engine(changed(whole, place, ints=tuple(ints)))


def test_weights_of_another_layer_are_refused() -> None:
    whole = sound("sparse_feedforward")
    place = place_of(whole, "sparse_feedforward")
    first, second, units = whole.ops[place].matrices
    for matrices in ((second, first, units), (first, units, second), (first, second, first), (first, second)):
        with pytest.raises(FormersError):
            Engine(changed(whole, place, matrices=matrices))


@pytest.mark.parametrize("name", ["module_convolution", "recurrent", "feature_attend"])
def test_a_cache_of_another_kind_is_refused(name: str) -> None:
    whole = sound(name)
    (number,) = whole.ops[place_of(whole, name)].caches
    own = whole.caches[number]
    for odd in (
        own._replace(keep="growing"),
        own._replace(width=own.width - 1),
        own._replace(capacity=own.capacity + 1),
    ):
        caches: list[Cache] = list(whole.caches)
        caches[number] = odd
        with pytest.raises(FormersError):
            Engine(replace(whole, caches=tuple(caches)))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_a_result_is_never_written_over_what_is_read(name: str, dtype: str) -> None:
    whole = sound(name, dtype)
    place = place_of(whole, name)
    reads, writes = whole.ops[place].reads, whole.ops[place].writes
    with pytest.raises(FormersError):
        Engine(changed(whole, place, writes=(reads[0], *writes[1:])))
    if len(writes) > 1:
        with pytest.raises(FormersError):
            Engine(changed(whole, place, writes=(writes[1], *writes[1:])))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(some.data())
def test_no_change_of_a_program_crashes(data: some.DataObject) -> None:
    """One or two numbers of an operation are changed: the program is refused, or runs, to whatever end."""
    name = data.draw(some.sampled_from(sorted(PARTS)))
    whole = sound(name, data.draw(some.sampled_from(["fp32", "bf16", "int4"])))
    place = place_of(whole, name)
    for _ in range(data.draw(some.integers(1, 2))):
        field = data.draw(some.sampled_from(["reads", "writes", "ints", "matrices", "vectors", "caches"]))
        numbers = list(getattr(whole.ops[place], field))
        if numbers and data.draw(some.booleans()):
            numbers[data.draw(some.integers(0, len(numbers) - 1))] = data.draw(NUMBERS)
        else:
            numbers.append(data.draw(NUMBERS))
        whole = changed(whole, place, **{field: tuple(numbers)})
    try:
        session = Engine(whole).session(2, threads=1)
        session.step([1, 2, 3, 4], [0, 0, 0, 1])
    except FormersError:
        return
