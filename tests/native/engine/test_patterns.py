"""Patterns with gaps: what the engine sees is what PyTorch sees, in every kernel; and it reads no more than that."""

from typing import Any

import numpy as np
import pytest
import torch
from small import KERNELS, VOCAB, awake, decoder

from formers import (
    MLP,
    ALiBi,
    Attention,
    Blocks,
    ByHead,
    Canvas,
    Causal,
    Dilated,
    Embedding,
    Everything,
    FormersError,
    Global,
    Learned,
    Local1D,
    Local2D,
    Rotary,
    Same,
    SeenByAll,
    SelfLast,
    Strided,
    Summary,
    T5Buckets,
    Window,
)
from formers.attention.pattern import Pattern
from formers.attention.patterns.permuted import Permuted, Shifted
from formers.attention.patterns.published_blocks import PublishedBlocks
from formers.attention.patterns.random_blocks import RandomBlocks
from formers.native.engine.build import NOTHING, Builder
from formers.native.engine.lower import lower
from formers.native.engine.lower_patterns import pattern_ints
from formers.native.engine.run import Engine
from formers.places import Places, keys, queries

LENGTH = 150  # longer than a tile of keys, and than the rows of one call
HEADS = 4
LIFTED = {
    "strided": Causal() & Strided(5),
    "strided, every one": Causal() & Strided(1),
    "summary": Causal() & (Window(1) | Summary(6, 4, 2)),
    "summary, all of it": Causal() & Summary(4, 0, 4),
    "summary from the start": Causal() & Summary(7, 0, 3),
    "dilated": Causal() & Dilated(4, 3),
    "dilated by one": Causal() & Dilated(7, 1),
    "global": Causal() & Global(3),
    "global, further on": Causal() & (Window(2) | Global(4, first=9)),
    "global beside a window": Causal() & (Global(2) | Window(8)),
    "blocks or strided": Causal() & (Blocks(8, before=1) | Strided(16)),
    "two strides": Causal() & Strided(3) & Strided(4),
    "either stride": Causal() & (Strided(3) | Strided(4)),
    "each causal": (Causal() & Window(5)) | (Causal() & Summary(8, 6, 2)),
    "all or some": Causal() & (Strided(9) | Everything()),
    "long runs": Causal() & (Window(70) | Summary(100, 0, 20)),
    "nested": Causal() & ((Window(30) & (Strided(2) | Summary(5, 3, 2))) | (Global(1) & Blocks(64, before=1))),
    "by head": Causal() & ByHead((Window(6), Strided(6))),
    "by head within": Causal() & (Window(3) | ByHead((Strided(4), Summary(8, 7, 1), Global(1), Dilated(3, 4)))),
    "local blocks": Causal() & Local1D(6, 9),
    "shifted": Causal() & Shifted(7, 2),
    "shifted beside its own": Causal() & ByHead((Blocks(16), Shifted(16, 1), Shifted(16, 0))),
    "permuted": Causal() & (Permuted(5, 4, 1) | Window(1)),
    "an image in blocks": Causal() & Local2D(Canvas(6, 6, 1, (3, 2)), 2, 1),
    "an image that blocks do not fill": Causal() & Local2D(Canvas(5, 7, 2, (3, 2)), 4, 2),
    "random blocks": Causal() & (Window(3) | RandomBlocks(4, 2, heads=4, among="earlier")),
    "random blocks of a length": Causal() & (Global(2) | RandomBlocks(8, 2, length=100)),
    "published blocks": Causal() & (Blocks(4, before=1) | PublishedBlocks(4, 2, heads=2, length=64)),
    "by three heads": ByHead((Causal(), Causal() & Window(3), Causal() & Strided(7))),
}
# No layer may have these, for some queries see nothing by them; a head of one may.
BLIND = {"cells alone": Causal() & Summary(9, 8, 1), "one block alone": Causal() & Permuted(5, 4, 1)}
PLACED = {"plain": None, "rotary": Rotary(), "alibi": ALiBi(), "t5": T5Buckets(8, 12), "self last": SelfLast()}


def model_of(pattern: Pattern, position: Any = None, **fields: Any) -> Any:
    given = fields if position is None else fields | {"position": position}
    return awake(decoder(Attention(HEADS, pattern=pattern, **given), MLP(16), embedding=Embedding(Learned(LENGTH))))


def equal(model: Any, kernel: str | None, length: int = LENGTH) -> None:
    """A prompt in one call, and single tokens behind it."""
    tokens = torch.randint(VOCAB, (1, length), generator=torch.Generator().manual_seed(2))
    row, prompt = tokens[0].tolist(), length * 4 // 5
    session = Engine(lower(model), kernel).session(threads=1)
    found = [torch.from_numpy(session.step(row[:prompt], [0] * prompt))]
    found += [torch.from_numpy(session.step([token])) for token in row[prompt:]]
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat(found), model(tokens).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", LIFTED)
def test_equals_pytorch(name: str, kernel: str) -> None:
    equal(model_of(LIFTED[name]), kernel)


@pytest.mark.parametrize("position", PLACED)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_order_enters_the_score_by_true_distances(position: str, heads: int) -> None:
    pattern = Causal() & (Window(3) | ByHead((Strided(4), Strided(5))))
    equal(model_of(pattern, PLACED[position], kv_heads=heads), None)


@pytest.mark.parametrize("width", [1, 7, 16, 40, 130])
def test_heads_of_any_width(width: int) -> None:
    equal(model_of(Causal() & (Window(3) | Strided(4)), head_dim=width), None)


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_keys_in_halves_are_gathered_too(dtype: str) -> None:
    model, row = model_of(Causal() & (Window(9) | Strided(8))), list(range(40)) * 3
    exact, rough = (Engine(lower(model, kind)).session().step(row, [0] * len(row)) for kind in ("fp32", dtype))
    assert 0 < abs(exact - rough).max() < abs(exact).max()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["by head within", "dilated", "long runs"])
def test_ragged_streams_go_on_side_by_side(name: str, kernel: str) -> None:
    model, lengths = model_of(LIFTED[name], Rotary()), [70, 3, 131]
    tokens = torch.randint(VOCAB, (3, LENGTH))
    session = Engine(lower(model), kernel).session(3, threads=2)
    with torch.inference_mode():
        expected = model(tokens).logits
    flat = [int(token) for row, length in zip(tokens, lengths, strict=True) for token in row[:length]]
    streams = [i for i, length in enumerate(lengths) for _ in range(length)]
    session.step(flat, streams)
    for step in range(15):
        rows = [2, 0, 1] if step % 2 else [1, 2]
        found = torch.from_numpy(session.step([int(tokens[row, lengths[row]]) for row in rows], rows))
        wanted = torch.stack([expected[row, lengths[row]] for row in rows])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        lengths = [length + (row in rows) for row, length in enumerate(lengths)]


@pytest.mark.parametrize("name", [*LIFTED, *BLIND])
def test_only_keys_that_are_seen_are_read(name: str) -> None:
    """A value that is no number shows in the heads that see it, and in no other, where a token is read alone."""
    pattern, length = (LIFTED | BLIND)[name], 90
    build = Builder("fp32")
    x = build.register(HEADS + 2)
    table = torch.ones(HEADS, HEADS + 2)  # queries of all heads, a key, a value
    table[1, -1] = torch.nan
    build.op("embed", writes=[x], floats=[1.0], matrices=[build.matrix(table)], vectors=[NOTHING])
    out = build.register(HEADS)
    build.op(
        "attend",
        reads=[x] * 3,
        writes=[out],
        ints=[HEADS, 1, 1, 1, 0, HEADS, HEADS + 1, *pattern_ints(pattern, HEADS, 7, LENGTH)],
        floats=[1.0, 0.0],
        vectors=[NOTHING] * 2,
        caches=build.keys_and_values("growing", heads=1, capacity=0, width=1),
    )
    build.op("pick", writes=[out])
    program = build.program("a pattern", "{}", HEADS, None, out).packed()
    at = queries(Places.run(length - 1, 1)), keys(Places.run(0, length))
    seen = pattern.visible(*at, torch.arange(HEADS)[:, None, None]).expand(1, HEADS, 1, length)[0, :, 0]
    engine = Engine(program)
    for key in range(length):
        session, tokens = engine.session(threads=1), [int(place == key) for place in range(length)]
        session.read(tokens[:-1])
        found = session.read(tokens[-1:])
        assert np.isnan(found).tolist() == seen[:, key].tolist()


def test_a_window_keeps_its_rolling_cache_and_so_does_one_with_gaps() -> None:
    for pattern, keep in (
        (Causal() & Window(5), {"rolling"}),
        (Causal() & Dilated(3, 2), {"rolling"}),
        (Causal() & Strided(5), {"growing"}),
        (Causal() & Window(5) & Strided(3), {"rolling"}),
    ):
        program = lower(model_of(pattern))
        assert {cache.keep for cache in program.caches} == keep
    session = Engine(lower(model_of(Causal() & Dilated(3, 2)))).session()
    session.read([1])
    at_first = session.cache_bytes
    session.step([2] * 140, [0] * 140)
    assert session.cache_bytes == at_first


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (Causal() & Same("document"), r"pattern Causal\(\) & Same.*, of which Same\(mark='document'\) is a part"),
        (Causal() & (Window(3) | SeenByAll()), "of which SeenByAll"),
        (Causal() & RandomBlocks(4, 2, among="earlier"), "RandomBlocks.* without end"),
    ],
)
def test_a_pattern_without_a_rule_is_named(pattern: Pattern, words: str) -> None:
    with pytest.raises(FormersError, match=words):
        pattern_ints(pattern, HEADS, 7, None)


def test_what_sees_ahead_is_refused() -> None:
    with pytest.raises(FormersError, match=r"Window\(size=3\), which is not causal"):
        pattern_ints(Window(3), HEADS, 7, None)


def test_heads_that_see_alike_share_their_words() -> None:
    assert pattern_ints(Causal() & ByHead((Window(3), Causal())), 4, 7, None) == [11, 14, 11, 14, 2, 0, 3, 0]
