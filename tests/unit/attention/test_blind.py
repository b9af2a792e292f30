"""Patterns that leave a query with nothing to see are refused, once and with a mend that builds."""

import pytest

from formers import (
    MLP,
    Attention,
    Block,
    Blocks,
    ByHead,
    Causal,
    ConfigError,
    Decoder,
    Dilated,
    Encoder,
    Global,
    Permuted,
    SeenByAll,
    Shifted,
    Strided,
    Summary,
    Window,
    make,
)
from formers.attention.blind import blind_problems, first_blind
from formers.attention.pattern import Pattern
from formers.spec import Site

DECODERS = {
    Causal() & Summary(8, 6, 2): "a query at position 0 sees no key",
    Causal() & Summary(8, 6, 2) & Window(7): "a query at position 0 sees",
    Causal() & Permuted(4, 3, 1): "a query at position 0 sees",
    Causal() & (Permuted(4, 2, 1) | Summary(12, 0, 1)): "",
    Causal() & (Window(3) & Summary(600, 0, 1) | Blocks(600)): "",
    Causal() & Window(3) & Summary(600, 0, 1): "a query at position 3 sees",
    Causal() & Blocks(8) & Summary(8, 0, 3): "",
    Causal() & Permuted(4, 2, 1) & Shifted(4, 1): "a query at position 0 sees",
    ByHead((Causal(), Causal() & Summary(8, 6, 2))): "a query of head 1 at position 0 sees no key",
    Causal() & ByHead((Window(2) | Global(3), Blocks(4))): "",
    Causal() & Global(1): "",
    Causal() & SeenByAll(): "",  # the input knows
    Causal() & Dilated(4, 8) & Window(8): "every 8th key is to be seen, and none that is 8 back or further",
    ByHead((Causal(), Window(5) & (Causal() & Dilated(4, 8)))): "every 8th key is to be seen, and none that is 5 back",
    Causal() & Dilated(4, 8) & Window(9): "",
    Causal() & (Dilated(4, 8) | Window(3)) & Window(8): "",
    Causal() & Dilated(1, 8) & Window(8): "",
    Causal() & Strided(700): "",
    Causal() & Shifted(64, 3): "",
}
ENCODERS = {
    Permuted(8, 4, 3): "",
    Permuted(300, 7, 3): "",
    Permuted(8, 4, 3) & Blocks(8): "a query at position 0 sees no key",
    Permuted(8, 4, 2) & Window(16): "a query at position 0 sees",
    Permuted(8, 2, 1) & Window(5): "a query at position 0 sees",
    Summary(9, 8, 1): "",
    Global(1) & Summary(5, 1, 1): "a query at position 1 sees no key",
}


@pytest.mark.parametrize("pattern", DECODERS, ids=repr)
def test_decoders_with_blind_queries_are_refused(pattern: Pattern) -> None:
    refused(pattern, DECODERS[pattern], Decoder)


@pytest.mark.parametrize("pattern", ENCODERS, ids=repr)
def test_encoders_with_blind_queries_are_refused(pattern: Pattern) -> None:
    refused(pattern, ENCODERS[pattern], Encoder)


def refused(pattern: Pattern, what: str, kind: type) -> None:
    spec = kind("mine", 10, 8, (Block((Attention(2, pattern=pattern), MLP(8))),))
    if not what:
        spec.build()
        return
    with pytest.raises(ConfigError) as error:
        spec.build()
    assert what in str(error.value) and "1 problem" in str(error.value)
    mend = str(error.value).split("fix: ")[1].strip()
    if mend.startswith("pattern="):
        mended = eval(mend.removeprefix("pattern="))
        kind("mine", 10, 8, (Block((Attention(2, pattern=mended), MLP(8))),)).build()


def test_what_is_wrong_by_itself_is_told_once() -> None:
    with pytest.raises(ConfigError) as error:
        Decoder("mine", 10, 8, (Block((Attention(2, pattern=Causal() & Blocks(0)),)),)).build()
    assert "1 problem" in str(error.value) and "hold nothing" in str(error.value)
    assert not list(blind_problems(Window(0), Site(8, heads=2)))


def test_equal_patterns_of_a_deep_model_are_looked_at_once() -> None:
    first_blind.cache_clear()
    for _ in range(200):
        attention = Attention(8, pattern=ByHead((Causal() & (Summary(512, 300, 9) | Window(1)), Causal() & Window(7))))
        assert not list(attention.problems(Site(8, causal=True)))
    assert first_blind.cache_info().misses == 2


@pytest.mark.parametrize("name", ["sparse_transformer", "blockbert"])
def test_members_leave_no_query_blind(name: str) -> None:
    spec = make(name)
    for block in spec.blocks[0].blocks if name == "sparse_transformer" else spec.blocks:
        attention = block.sublayers[0]
        assert not list(attention.problems(spec.inside(spec.site)))
