"""What `cost` tells of attention whose pairs are chosen by content is what is multiplied, and what is kept."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from formers import (
    LSH,
    MLP,
    Attention,
    Block,
    Causal,
    Parallel,
    Reversible,
    Routing,
    SelfLast,
    SharedQK,
    SinkhornAttention,
    TopBlocks,
    Untied,
    Window,
    make,
)
from formers.attention.select import Selector
from formers.call import Call, Layer
from formers.model import parameter_count
from formers.places import Places
from formers.report.cost import cost
from formers.report.price import Price
from formers.state import tensors

LENGTHS = [12, 13, 24]
HEADS, HEAD_DIM, DIM = 2, 8, 16
PAIR = 4 * HEADS * HEAD_DIM
ALIKE: dict[str, Any] = {"position": SelfLast(), "projection": SharedQK(), "scale": 1.0}
LAYERS: dict[str, Layer] = {
    "hashing": Attention(HEADS, select=LSH(4, 2, 4, plain_below=0), **ALIKE),
    "hashing to as many buckets as chunks": Attention(HEADS, select=LSH(4, 2, plain_below=0), **ALIKE),
    "hashing twice for a bucket": Attention(HEADS, select=LSH(4, 2, (4, 6), plain_below=0), **ALIKE),
    "hashing, where texts are too short": Attention(HEADS, select=LSH(4, 2, 4, plain_below=100), **ALIKE),
    "strict hashing": Attention(HEADS, select=LSH(4, 2, 4, strict=True), **ALIKE),
    "routing": Attention(HEADS, select=Routing(3, window=4), **ALIKE),
    "balanced routing": Attention(HEADS, select=Routing(3, balanced=True), **ALIKE),
    "balanced routing of keys": Attention(HEADS, select=Routing(3, balanced=True, joint=False)),
    "blocks": Attention(HEADS, select=TopBlocks(4, 1)),
    "more blocks than there are": Attention(HEADS, select=TopBlocks(4, 5)),
    "blocks of shared keys": Attention(HEADS, kv_heads=1, select=TopBlocks(4, 1)),
    "sorting": SinkhornAttention(HEADS, block=4),
    "side by side": Parallel(
        (
            Attention(1, head_dim=8, pattern=Causal() & Window(5)),
            Attention(1, head_dim=8, select=Routing(3, window=4), **ALIKE),
        )
    ),
}
BY_TILES = [name for name in LAYERS if "block" not in name and name != "sorting"]


def holding(*layers: Layer) -> Any:
    return make("gpt2", dim=DIM, depth=1, heads=HEADS, vocab=40, length=64, dropout=0).replace(blocks=(Block(layers),))


def built(spec: Any) -> Any:
    return spec.build().eval().requires_grad_(False)


def tokens(length: int) -> torch.Tensor:
    return torch.zeros(1, length, dtype=torch.int64)


def counted(call: Any) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def part(spec: Any, length: int, name: str) -> Price:
    return next(part.price for part in cost(spec, length).parts if part.name == name)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_decode_step_does_and_keeps_what_is_told(name: str, length: int) -> None:
    spec = holding(LAYERS[name])
    model, told = built(spec), cost(spec, length).total
    before = model(tokens(length - 1)).state
    assert counted(lambda: model(tokens(1), before)) == told.last
    after = tensors(model(tokens(1), before).state)
    assert sum(t.element_size() * t.numel() for t in after) == told.state


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", BY_TILES)
def test_a_pass_by_tiles_does_what_is_told(name: str, length: int) -> None:
    """A window that hides nothing keeps the sorted executor, which no counter sees into, from running."""
    layer = LAYERS[name]
    if isinstance(layer, Parallel):
        layer = layer.layers[1]
    if "too short" not in name:
        layer = layer.replace(pattern=Causal() & Window(1000))
    spec = holding(layer)
    model, told = built(spec), cost(spec, length).total.operations
    if "too short" in name:  # dense, and the pattern shows half of the pairs
        hidden = length * (length - 1) / 2 * PAIR
        assert counted(lambda: model(tokens(length))) == pytest.approx(told * length + hidden)
    else:
        assert counted(lambda: model(tokens(length))) == pytest.approx(told * length)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_pass_of_sorting_does_what_is_told(length: int) -> None:
    spec = holding(LAYERS["sorting"])
    assert counted(lambda: built(spec)(tokens(length))) == pytest.approx(cost(spec, length).total.operations * length)


@pytest.mark.parametrize("cut", [None, 1, 2, 9])
def test_two_sided_sorting_does_what_is_told(cut: int | None) -> None:
    layer = SinkhornAttention(4, block=4, cut=cut)
    spec = make("bert", **{"dim": 16, "depth": 1, "heads": 4, "hidden": 8, "vocab": 40, "length": 64})
    spec = spec.replace(blocks=(Block((layer,), spec.blocks[0].residual),))
    assert counted(lambda: built(spec)(tokens(12))) == pytest.approx(cost(spec, 12).total.operations * 12)


def choosing_of_one(select: Selector, length: int) -> float:
    """Operations a token beside the products of the projection."""
    layer = Attention(HEADS, select=select, **(ALIKE if select.of_keys else {}))
    matrices = 3 if select.of_keys else 4
    return part(holding(layer), length, "Attention").operations - matrices * 2 * DIM * DIM


def test_hashing_by_hand() -> None:
    """3 rounds, a chunk of 4 with the one before it, and 6 / 2 axes that each key is multiplied with."""
    assert choosing_of_one(LSH(4, 3, 6, plain_below=0), 16) == 3 * 8 * PAIR + 3 * 3 * 2 * HEADS * HEAD_DIM


def test_the_last_chunk_is_filled_up() -> None:
    hashing = 3 * 3 * 2 * HEADS * HEAD_DIM
    assert choosing_of_one(LSH(4, 3, 6, plain_below=0), 13) == pytest.approx(16 / 13 * 3 * 8 * PAIR + hashing)


def test_blocks_by_hand() -> None:
    """Four blocks of 4: they may choose among 0, 1, 2 and 3 others, and take 0, 1, 2 and 2."""
    assert choosing_of_one(TopBlocks(4, 2), 16) == 4 * (1 + 5 / 4) * PAIR + 6 / 4 * 2 * HEADS * HEAD_DIM


@pytest.mark.parametrize("select", [LSH(4, 2, 4, plain_below=0), LSH(4, 2, 4, strict=True), Routing(3, window=4)])
def test_pairs_are_those_of_the_plan(select: Selector) -> None:
    length, site = 14, holding(LAYERS["hashing"]).site.replace(causal=True)
    layer: Any = Attention(HEADS, select=select, **ALIKE).build(site)
    at = Places.run(0, length)
    choices = layer(torch.randn(1, length, DIM), Call(at)).choices
    pairs = layer.select.plan(choices, at, at).tiles().pairs
    others = 2 * HEADS * HEAD_DIM * (4 if isinstance(select, LSH) else 3)
    assert choosing_of_one(select, length) == pytest.approx(pairs / length * PAIR + others)


def test_a_reversible_stack_is_told_part_by_part() -> None:
    blocks = (Block((LAYERS["hashing"], MLP(24, chunk=5))), Block((Attention(2), MLP(24, chunk=5))))
    plain = holding(MLP(1)).replace(blocks=blocks, head=Untied())
    spec = plain.replace(blocks=(Reversible(blocks),))
    told, beside = cost(spec, 12), cost(plain, 12)
    assert told.total.parameters == parameter_count(spec.build())
    names = [name for name, *_ in told.parts]
    assert "Attention at blocks[0].blocks[0].sublayers[0]" in names and "MLP" in names
    assert told.total.state == beside.total.state > 0
    twice_as_wide = 2 * DIM * spec.vocab
    assert told.total.operations == beside.total.operations + twice_as_wide
    inside = [price.operations for name, _, price in told.parts if name not in ("Embedding", "LayerNorm", "Untied")]
    assert told.recomputed == sum(inside) == told.total.operations - 2 * twice_as_wide


def test_what_training_runs_once_more_outside_a_reversible_stack() -> None:
    spec = holding(Attention(2), MLP(24, chunk=5))
    assert cost(spec, 5).recomputed == 0
    assert cost(spec, 6).recomputed == part(spec, 6, "MLP").operations
    shared = holding(Attention(2, heads_at_once=1), MLP(24))
    assert cost(shared, 6).recomputed == part(shared, 6, "Attention").operations


@pytest.mark.parametrize(
    ("select", "grows"),
    [(None, 4.0), (LSH(4, 2, 8), 1.0), (TopBlocks(16, 1), 4.0), (Routing(8, window=4), 1.0)],
    ids=["none", "hashing", "blocks", "routing"],
)
def test_how_the_cost_of_a_token_grows_with_the_length(select: Selector | None, grows: float) -> None:
    """Of four times the length: as much again where a token meets so many, four times where it looks at all blocks."""
    layer = Attention(HEADS, select=select, **(ALIKE if select is not None and select.of_keys else {}))
    spec = holding(layer).replace(embedding=make("llama").embedding)
    one, four = (part(spec, length, "Attention").operations for length in (1 << 18, 1 << 20))
    assert four / one == pytest.approx(grows, rel=0.1)
