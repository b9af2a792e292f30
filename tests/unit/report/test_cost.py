"""What `cost` tells of a model is what the built model has, does, and keeps."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from formers import MEMBERS, Decoder, FormersError, make
from formers.model import parameter_count
from formers.report.cost import Cost, cost
from formers.spec import assign
from formers.state import tensors

LENGTH = 12
WHOLE = 15  # tokens that fill the local blocks of every member: a step then sees all that it holds
HOLES = [
    "image_transformer",
    "longformer_lm",
    "sparse_transformer",
]  # they hold what a later token sees, or another head
CAUSAL = [name for name, member in MEMBERS.items() if isinstance(member.make(**member.small), Decoder)]
ADAPTIVE = ["universal", "calm", "depth_adaptive_lm"]  # what they do depends on the token
CAUSAL = [name for name in CAUSAL if name not in HOLES + ADAPTIVE]
POSITIONS = ["NoPosition()", "Rotary()", "ALiBi()", "T5Buckets()", "Shaw(3)", "TransformerXL()", "DistanceAware()"]
PATTERNS = ["Causal()", "Causal() & Window(5)", "Causal() & (Window(2) | Blocks(4))"]


def small(name: str) -> Any:
    return make(name, **MEMBERS[name].small)


def counted(call: Any) -> int:
    """Operations of the matrix products of a call."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def tokens(length: int) -> torch.Tensor:
    return torch.zeros(1, length, dtype=torch.int64)


def built(spec: Any) -> Any:
    return spec.build().eval().requires_grad_(False)


def state_bytes(state: Any) -> int:
    """Where tokens stand is no part of it."""
    return sum(4 * tensor.numel() for tensor in tensors(state) if tensor.dtype in (torch.float32, torch.int32))


def assert_step_as_told(spec: Any, told: Cost) -> None:
    model = built(spec)
    before = model(tokens(told.length - 1)).state
    assert counted(lambda: model(tokens(1), before)) == told.total.last
    after = model(tokens(1), before).state
    assert state_bytes(after) == told.total.state


@pytest.mark.parametrize("name", MEMBERS)
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    told = cost(small(name), LENGTH)
    assert told.total.parameters == parameter_count(small(name).build())


@pytest.mark.parametrize("name", CAUSAL)
def test_a_decode_step_does_and_keeps_what_is_told(name: str) -> None:
    assert_step_as_told(small(name), cost(small(name), WHOLE))


@pytest.mark.parametrize("name", HOLES)
def test_what_is_held_and_not_seen_is_kept_and_no_work(name: str) -> None:
    told, model = cost(small(name), WHOLE), built(small(name))
    before = model(tokens(WHOLE - 1)).state
    assert counted(lambda: model(tokens(1), before)) > told.total.last
    assert state_bytes(model(tokens(1), before).state) >= told.total.state  # holes are closed up now and then


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_costs_what_is_told(position: str) -> None:
    spec = assign(small("llama"), f"blocks[*].sublayers[0].position={position}")
    assert_step_as_told(spec, cost(spec, LENGTH))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_mean_over_a_pass_is_that_of_its_tokens(pattern: str) -> None:
    spec = assign(small("gpt2"), f"blocks[*].sublayers[0].pattern={pattern}")
    one_by_one = [cost(spec, length).total.last for length in range(1, LENGTH + 1)]
    assert cost(spec, LENGTH).total.operations == pytest.approx(sum(one_by_one) / LENGTH)


def test_an_encoder_does_what_is_told_and_keeps_nothing() -> None:
    spec, model = small("bert"), built(small("bert"))
    told = cost(spec, LENGTH)
    assert counted(lambda: model(tokens(LENGTH))) == told.total.operations * LENGTH
    assert not told.decodes
    assert (told.total.last, told.total.weights, told.total.state) == (0, 0, 0)


WHOLE_UNITS = {"sparse": ("qkv", "cross", "loss")}  # of many tokens, the chosen units alone are no matrix products
PAIRED: dict[str, dict[str, Any]] = {
    "transformer": {},
    "reformer_translation": {},
    "scaling_transformer_translation": WHOLE_UNITS,
    "terraformer": WHOLE_UNITS,
}


@pytest.mark.parametrize("name", PAIRED)
def test_both_sides_of_an_encoder_decoder_do_and_keep_what_is_told(name: str) -> None:
    spec = make(name, **{**MEMBERS[name].small, **PAIRED[name]})
    model = built(spec)
    told = cost(spec, LENGTH)
    source = sum(part.price.operations for part in told.parts if part.name.startswith("source "))
    assert counted(lambda: model.source(tokens(LENGTH))) == source * LENGTH
    state = model.step(tokens(LENGTH - 1), model.start(tokens(LENGTH))).state
    assert counted(lambda: model.step(tokens(1), state)) == told.total.last
    assert state_bytes(model.step(tokens(1), state).state) == told.total.state


def test_shared_tables_are_counted_where_they_first_occur() -> None:
    told = {part.name: part.price.parameters for part in cost(small("transformer"), LENGTH).parts}
    assert told["source Embedding"] == 40 * 32
    assert told["target Embedding"] == told["target Tied"] == 0


def test_a_window_forgets() -> None:
    spec = assign(small("llama"), "blocks[*].sublayers[0].pattern=Causal() & Window(5)")
    told = cost(spec, 100).total
    assert told.state == 4 * told.token


def test_a_decode_step_reads_every_matrix_and_one_row_of_each_table() -> None:
    spec = small("llama")
    told = cost(spec, LENGTH).total
    assert told.weights == 4 * (told.parameters - (spec.vocab - 1) * spec.dim)


def test_seventy_billion_parameters_cost_no_memory() -> None:
    spec = make("llama", dim=8192, depth=80, heads=64, kv_heads=8, hidden=28_672)
    assert isinstance(spec, Decoder)
    told = cost(spec, 4096).total
    assert told.parameters == 68_976_648_192  # as counted in the published checkpoint
    assert told.token == 80 * 2 * 8 * 128 * 4


def test_alike_parts_that_differ_are_told_apart_by_their_place() -> None:
    spec = assign(small("gpt2"), "blocks[1].sublayers[0].pattern=Causal() & Window(5)")
    names = [part.name for part in cost(spec, LENGTH).parts if "Attention" in part.name]
    assert names == ["Attention at blocks[0].sublayers[0]", "Attention at blocks[1].sublayers[0]"]


@pytest.mark.parametrize(("length", "what"), [(0, "at least 1"), (65, "64 positions")])
def test_lengths_that_cannot_be_are_refused(length: int, what: str) -> None:
    with pytest.raises(FormersError, match=what):
        cost(small("gpt2"), length)
