"""Sparse Transformer and BlockBERT: what their heads see, their sizes, how they begin, and that 200 layers learn."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import ConfigError, make
from formers.attention.pattern import Pattern
from formers.family import MEMBERS
from formers.family.sparse import factorised
from formers.model import parameter_count
from formers.places import Places, keys, queries
from formers.report.cost import cost

SMALL = MEMBERS["sparse_transformer"].small
LENGTH, STRIDE, HEADS = 40, 6, 4


def seen(pattern: Pattern, heads: int = HEADS) -> Tensor:
    """(H, LENGTH, LENGTH)."""
    at = Places.run(0, LENGTH)
    return pattern.visible(queries(at), keys(at), torch.arange(heads)[:, None, None]).expand(1, heads, -1, -1)[0]


def first(kind: str, i: int) -> set[int]:
    """A1 of arXiv:1904.10509: the last `stride` positions, or the own block up to i."""
    return {j for j in range(i + 1) if (i - j < STRIDE if kind == "strided" else i // STRIDE == j // STRIDE)}


def second(kind: str, i: int, cells: range) -> set[int]:
    """A2: the same column, or the cells of every block up to i, and i itself."""
    if kind == "strided":
        return {j for j in range(i + 1) if (i - j) % STRIDE == 0}
    return {j for j in range(i + 1) if j % STRIDE in cells or j == i}


def rows(mask: Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in mask]


@pytest.mark.parametrize("kind", ["strided", "fixed"])
def test_the_three_ways_to_use_two_patterns(kind: str) -> None:
    """Cells of a block of 6, two at a time, as the heads take them in turn: the last two, those before them, the first."""
    cells = [range(4, 6), range(2, 4), range(0, 2)]
    near = [first(kind, i) for i in range(LENGTH)]
    far = [[second(kind, i, of_head) for i in range(LENGTH)] for of_head in cells]
    local, distant = factorised(kind, "alternate", HEADS, STRIDE, 2)
    (merged,), (mixed,) = factorised(kind, "merged", HEADS, STRIDE, 2), factorised(kind, "heads", HEADS, STRIDE, 2)
    for head in range(HEADS):
        assert rows(seen(local)[head]) == near
        assert rows(seen(distant)[head]) == far[head % 3]
        assert rows(seen(merged)[head]) == [a | b for a, b in zip(near, far[head % 3], strict=True)]
        assert rows(seen(mixed)[head]) == (near if head % 2 == 0 else far[head // 2])


@pytest.mark.parametrize("kind", ["strided", "fixed"])
@pytest.mark.parametrize("use", ["alternate", "merged", "heads"])
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_two_layers_carry_every_token_to_every_later_one(kind: str, use: str, heads: int) -> None:
    """The product of the two masks, as booleans, is the causal triangle. The fixed pattern's need their order: cells
    must have read their blocks before they are read."""
    if use == "heads" and heads == 1:
        pytest.skip("one head cannot see by both")
    layers = factorised(kind, use, heads, STRIDE, 2)
    lower, upper = (layers * 2)[:2]
    triangle = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    masks = [seen(pattern, heads).any(0).double() for pattern in (lower, upper)]
    assert torch.equal(masks[1] @ masks[0] > 0, triangle)
    assert torch.equal(masks[0] @ masks[1] > 0, triangle) == ((kind, use) != ("fixed", "alternate") or heads == 8)
    assert all(not torch.equal(mask > 0, triangle) for mask in masks) or (kind == "fixed" and heads == 8)


def test_a_query_sees_about_as_many_keys_as_the_root_of_the_text_has() -> None:
    spec = make("sparse_transformer")
    at = Places.run(12_000, 1), Places.run(0, 12_288)
    (pattern,) = {block.sublayers[0].pattern for block in spec.blocks[0].blocks}
    counted = pattern.visible(queries(at[0]), keys(at[1]), torch.arange(8)[:, None, None]).sum(-1).flatten()
    own, before = 12_000 % 128 + 1, 12_000 // 128
    assert counted.tolist()[0] == own + 32 * before
    assert counted.max() < 12_000 / 3.5


@pytest.mark.parametrize(("preset", "millions"), [("enwik8", 95), ("cifar10", 68), ("imagenet64", 152)])
def test_the_published_sizes(preset: str, millions: int) -> None:
    """Table 1 tells 95 and 152, and 59 for CIFAR-10, whose queries and keys are half as wide as ours."""
    depth = len(make("sparse_transformer", preset).blocks[0].blocks)
    with torch.device("meta"):
        one, two = (parameter_count(make("sparse_transformer", preset, depth=n).build()) for n in (1, 2))
    assert round((one + (depth - 1) * (two - one)) / 1e6) == millions


def test_recomputation_is_told_in_the_cost() -> None:
    costs = cost(make("sparse_transformer", **SMALL), 64)
    blocks = [part for part in costs.parts if part.name.split()[0] in ("Attention", "MLP", "PreNorm")]
    assert costs.recomputed == pytest.approx(sum(part.price.operations for part in blocks))


def test_how_it_begins() -> None:
    """The deviations that section 6 of the paper tells, for a stack of 2 x depth sublayers."""
    torch.manual_seed(0)
    depth, dim = 3, 256
    model = make("sparse_transformer", vocab=256, dim=dim, depth=depth, heads=4, shape=(40, 128)).build()
    state = model.state_dict()
    wanted = {
        "embedding.tokens.weight": 0.125 / math.sqrt(dim),
        "embedding.position.tables.0.weight": 0.125 / math.sqrt(2 * dim),
        "embedding.position.tables.1.weight": 0.125 / math.sqrt(2 * dim),
        "q_proj.weight": 0.125 / math.sqrt(dim),
        "up.weight": 0.125 / math.sqrt(dim),
        "out_proj.weight": 0.125 / math.sqrt(dim) / math.sqrt(2 * depth),
        "down.weight": 0.125 / math.sqrt(4 * dim) / math.sqrt(2 * depth),
    }
    for end, std in wanted.items():
        found = [tensor for name, tensor in state.items() if name.endswith(end)]
        assert found
        for tensor in found:
            assert tensor.std().item() == pytest.approx(std, rel=0.05), end
    assert not state["head.proj.weight"].any()
    assert all(not tensor.any() for name, tensor in state.items() if name.endswith("bias"))


def test_dropout_stands_at_the_end_of_each_residual_addition_only() -> None:
    spec = make("sparse_transformer", **SMALL, dropout=0.3)
    block = spec.blocks[0].blocks[0]
    assert (spec.embedding.dropout, block.residual.dropout) == (0.0, 0.3)
    assert [sublayer.dropout for sublayer in block.sublayers] == [0.0, 0.0]


def test_its_gelu_is_the_sigmoid_one() -> None:
    model = make("sparse_transformer", **SMALL).build()
    x = torch.linspace(-4, 4, 50)
    torch.testing.assert_close(model.stack.blocks[0].blocks[0].sublayers[1].activation(x), x * torch.sigmoid(1.702 * x))
    torch.testing.assert_close(x * torch.sigmoid(1.702 * x), F.gelu(x), atol=0.03, rtol=0)


def test_a_stack_of_200_layers_learns() -> None:
    """Attention and feed-forward 200 times over: the loss falls at once, and no gradient grows without bounds."""
    torch.manual_seed(0)
    sizes = {"vocab": 8, "dim": 16, "depth": 200, "heads": 2, "hidden": 16, "shape": (4, 4), "stride": 4, "cells": 1}
    model = make("sparse_transformer", **sizes, dropout=0.0).build().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    text = torch.randint(8, (1, 13), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(5):
        logits = model(text[:, :-1], remember=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(8))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"kind": "random"}, "kind='fixed'"),
        ({"use": "both"}, "use='merged'"),
        ({"cells": 0}, "cells=2"),
        ({"cells": 9}, "a block of 8 does not hold 9 cells"),
        ({"shape": ()}, "has no positions"),
        ({"kind": "strided", "stride": 0}, "a window of 0"),
    ],
)
def test_what_makes_no_sparse_transformer(arguments: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make("sparse_transformer", **SMALL | arguments).build()


def attended(weights: list[Tensor], size: int) -> Iterator[tuple[int, set[tuple[int, int]]]]:
    """Of each head, which pairs of blocks meet."""
    for head, mask in enumerate(weights):
        yield head, {(q // size, k // size) for q, k in mask.nonzero().tolist()}


@pytest.mark.parametrize("by_shift", [(10, 2), (8, 2, 2), (1, 1, 1, 1)])
def test_blockbert_heads_see_one_block_each(by_shift: tuple[int, ...]) -> None:
    """Equation 4 of arXiv:1911.02972: block i of a head meets block (i + shift) mod n, and all of it."""
    blocks = len(by_shift)
    spec = make("blockbert", vocab=20, dim=24, depth=2, heads_by_shift=by_shift, hidden=8, length=LENGTH)
    size = -(-LENGTH // blocks)
    attention = spec.blocks[0].sublayers[0]
    assert attention.heads == sum(by_shift) and spec.blocks[1].sublayers[0].pattern == attention.pattern
    shifts = [shift for shift, count in enumerate(by_shift) for _ in range(count)]
    masks = seen(attention.pattern, attention.heads)
    for head, pairs in attended(list(masks), size):
        assert pairs == {(i, (i + shifts[head]) % blocks) for i in range(blocks)}
    in_full = torch.block_diag(*[torch.ones(n, n) for n in [size] * (blocks - 1) + [LENGTH - size * (blocks - 1)]]) > 0
    assert torch.equal(masks[0], in_full)


def test_blockbert_in_one_block_is_bert() -> None:
    torch.manual_seed(0)
    small = {"vocab": 20, "dim": 24, "depth": 2, "hidden": 8, "length": LENGTH}
    ours, bert = make("blockbert", **small, heads_by_shift=(4,)).build().eval(), make("bert", **small, heads=4).build()
    ours.load_state_dict(bert.state_dict())
    tokens = torch.randint(20, (2, LENGTH))
    torch.testing.assert_close(ours(tokens).logits, bert.eval()(tokens).logits)


def test_a_short_text_leaves_the_heads_of_a_missing_block_at_zero() -> None:
    """Nothing of it is lost: the other heads go on as they would, and nobody divides by 0."""
    torch.manual_seed(0)
    spec = make("blockbert", vocab=20, dim=24, depth=1, heads_by_shift=(2, 2), hidden=8, length=16, dropout=0.0)
    model = spec.build().double().eval()
    heads: list[Tensor] = []
    layer: nn.Module = model.stack.blocks[0].sublayers[0].projection
    run = layer.output
    layer.output = lambda x: heads.append(x) or run(x)
    assert model(torch.randint(20, (2, 5))).logits.isfinite().all()
    assert heads[0][:, :2].any() and not heads[0][:, 2:].any()
    model(torch.randint(20, (2, 11)))
    assert heads[1][:, 2:, :8].any() and heads[1][:, 2:, 8:].any()


@pytest.mark.parametrize("by_shift", [(), (0, 0), (3, -1)])
def test_heads_that_see_nothing_are_refused(by_shift: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="heads_by_shift="):
        make("blockbert", heads_by_shift=by_shift)
