"""ETC's attention against formulas over all pairs, written from the paper (arXiv:2004.08483)."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from formers import Attention, ConfigError, GlobalLocal, GlobalLocalAttention, NoPosition, RelativeLabels, make
from formers.attention.plan import block_plan, dense_plan
from formers.attention.span import BlockSpans
from formers.attention.tiles import attend_tiles
from formers.call import Call
from formers.places import Places, Spots, keys, queries
from formers.spec import Site
from formers.tokens import place

pytestmark = pytest.mark.usefixtures("float64")
DIM, HEADS = 12, 3
GLOBALS, LENGTHS = (4, 2, 0), (13, 9, 17)  # of three rows
HARD = [(), ("g2l",), ("l2g",), ("g2l", "l2g")]


def sides(ahead: int, length: int) -> tuple[Tensor, Tensor]:
    """Marks of one row: segments of three tokens, each with a global token, and the last tokens in none."""
    segment = torch.arange(length - ahead) // 3
    segment = torch.where(segment < ahead, segment, -1)
    return (torch.arange(length) < ahead).long(), torch.cat([torch.arange(ahead), segment])


def ragged() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x (B, T, M), mask (B, T) and marks of rows that differ in both inputs."""
    width = max(LENGTHS)
    x = torch.randn(len(LENGTHS), width, DIM)
    mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    marks = {name: torch.full((len(LENGTHS), width), 7) for name in ("global", "segment")}
    for row, (ahead, length) in enumerate(zip(GLOBALS, LENGTHS, strict=True)):
        for name, mark in zip(("global", "segment"), sides(ahead, length), strict=True):
            marks[name][row, :length] = mark
    return x, mask, marks


def built(spec: GlobalLocalAttention | Attention, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layer = spec.build(Site(dim=DIM)).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


def run(layer: nn.Module, x: Tensor, mask: Tensor | None, marks: dict[str, Tensor] | None) -> Tensor:
    at = place(torch.zeros(x.shape[:2], dtype=torch.int64), 0, mask, marks)
    return layer(x, Call(at, remember=False)).y


def by_pairs(layer: nn.Module, x: Tensor, ahead: int, segment: Tensor) -> Tensor:
    """One row (T, M), one query and one head at a time. The first `ahead` tokens are global."""
    spec, labels = layer.spec, layer.position.keys.transpose(0, 1)
    reach, outs = layer.position.reach, []
    for i in range(len(x)):
        of_global = i < ahead
        side = layer.of_global if of_global and spec.separate else layer.projection
        seen, label = [], []
        for j in range(len(x)):
            same = segment[i] == segment[j] >= 0
            if of_global == (j < ahead):  # g2g or l2l
                may, row = of_global or abs(i - j) <= spec.pattern.radius, max(-reach, min(reach, j - i)) + reach
            else:
                may = same or ("g2l" if of_global else "l2g") not in spec.pattern.hard
                row = 2 * reach + (1 if same else 2)
            if may:
                seen.append(j)
                label.append(row + (2 * reach + 3 if of_global else 0))
        q = side.q_proj(x[i]).view(HEADS, -1)
        k, v = (proj(x[seen]).view(len(seen), HEADS, -1) for proj in (side.k_proj, side.v_proj))
        scores = torch.einsum("hd,jhd->hj", q, k + labels[label]) * (DIM // HEADS) ** -0.5
        heads = torch.einsum("hj,jhd->hd", scores.softmax(-1), v)
        outs.append((layer.of_global if of_global else layer.projection).out_proj(heads.flatten()))
    return torch.stack(outs)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("hard", HARD)
def test_each_mask_and_label_is_the_formula(hard: tuple, separate: bool) -> None:
    layer = built(GlobalLocalAttention(HEADS, GlobalLocal(2, hard), RelativeLabels(1), separate))
    x, mask, marks = ragged()
    x.requires_grad_()
    found = run(layer, x, mask, marks)
    wanted = torch.zeros_like(found)
    for row, (ahead, length) in enumerate(zip(GLOBALS, LENGTHS, strict=True)):
        wanted[row, :length] = by_pairs(layer, x[row, :length], ahead, marks["segment"][row, :length])
    torch.testing.assert_close(found[mask], wanted[mask])
    weights, learned = torch.randn_like(found)[mask], [x, *layer.parameters()]
    slopes = torch.autograd.grad((found[mask] * weights).sum(), learned)
    torch.testing.assert_close(slopes, torch.autograd.grad((wanted[mask] * weights).sum(), learned))


def test_a_wide_radius_and_shared_projections_are_plain_attention_over_both_inputs() -> None:
    layer = built(GlobalLocalAttention(HEADS, GlobalLocal(99), NoPosition()))
    plain = built(Attention(HEADS))
    plain.load_state_dict(layer.state_dict(), strict=False)
    layer.of_global.load_state_dict({name: t for name, t in layer.projection.state_dict().items() if "out" in name})
    x, mask, marks = ragged()
    torch.testing.assert_close(run(layer, x, mask, marks)[mask], run(plain, x, mask, None)[mask])


def test_labels_of_the_two_inputs_are_apart() -> None:
    """l2g and g2l say the same of a pair by different vectors, and so do l2l and g2g."""
    layer = RelativeLabels(2).build(Site(dim=DIM, heads=HEADS, head_dim=4))
    at = Places.run(
        0, 8, None, {name: mark[None] for name, mark in zip(("global", "segment"), sides(2, 8), strict=True)}
    )
    labels = layer.labels(queries(at), keys(at))[0, 0]
    sides_of = (slice(2), slice(2, 8))
    pieces = [set(labels[rows, columns].flatten().tolist()) for rows in sides_of for columns in sides_of]
    assert all(not one & other for one, other in itertools.combinations(pieces, 2))
    assert len(pieces[1]) == len(pieces[2]) == 2
    assert labels[0, 2] == labels[1, 5] != labels[0, 5]


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("marked", [True, False])
def test_bounds_of_blocks_hold(hard: tuple, marked: bool) -> None:
    pattern, (_, mask, marks) = GlobalLocal(2, hard), ragged()
    at = Places(torch.arange(17)[None], mask, marks if marked else None)
    seen = pattern.visible(queries(at), keys(at), torch.arange(1)[:, None, None]).expand(3, 1, 17, 17)[:, 0]
    met = mask[:, :, None] & mask[:, None, :]
    tight = 0
    for (a, b), (c, d) in itertools.product(itertools.combinations(range(0, 18, 3), 2), repeat=2):
        rows, columns = slice(a, b), slice(c, d)
        q, k = (BlockSpans(spots(at, which), mask[:, None, which], axis) for which, axis in ((rows, 1), (columns, 0)))
        part, real = seen[:, rows, columns], met[:, rows, columns]
        if pattern.covers(q, k):
            assert (part | ~real).all()
        if not pattern.reaches(q, k):
            tight += 1
            assert not (part & real).any()
    assert tight > 0


def spots(at: Places, which: slice) -> Spots:
    return Spots.of(at, lambda t: t[:, None, which])


@pytest.mark.parametrize("hard", HARD)
def test_any_blocks_give_what_one_dense_tile_gives(hard: tuple) -> None:
    pattern, (_, mask, marks) = GlobalLocal(2, hard), ragged()
    at = Places((mask.cumsum(1) - 1).clamp(min=0), mask, marks)
    q, k, v = torch.randn(3, 3, HEADS, 17, 4)
    position = RelativeLabels(2).build(Site(dim=DIM, heads=HEADS, head_dim=4))
    rest = {"at": at, "to": at, "pattern": pattern, "position": position, "scale": 0.5}
    wanted, _ = attend_tiles(q, k, v, dense_plan(17, 17), **rest)
    keep = mask[:, None, :, None].expand_as(wanted)
    for block in (1, 3, 8):
        found, _ = attend_tiles(q, k, v, block_plan(pattern, at, at, block), **rest)
        torch.testing.assert_close(found[keep], wanted[keep])


def test_without_marks_all_tokens_are_long() -> None:
    layer = built(GlobalLocalAttention(HEADS, GlobalLocal(2), RelativeLabels(1)))
    x = torch.randn(1, 9, DIM)
    torch.testing.assert_close(run(layer, x, None, None)[0], by_pairs(layer, x[0], 0, torch.full((9,), -1)))
    none = {"global": torch.zeros(1, 9), "segment": torch.full((1, 9), -1)}
    torch.testing.assert_close(run(layer, x, None, none), run(layer, x, None, None))


def test_the_cost_grows_with_the_length() -> None:
    """A block of long tokens reaches its neighbours and the global tokens, and nothing else."""
    shares = []
    for length in (2048, 4096):
        marks = {"global": torch.arange(length)[None] < 32, "segment": torch.arange(length)[None] % 32}
        at = Places.run(0, length, None, marks)
        shares.append(block_plan(GlobalLocal(84), at, at).pairs / length)
    assert shares[1] < 1.3 * shares[0]


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        ({"global": [1, 0, 0]}, "the mark 'global' is given and 'segment' is not"),
        ({"segment": [0, 0, 0]}, "the mark 'segment' is given and 'global' is not"),
        ({"global": [1, 0, 0], "segment": [0, 0, 1]}, "segment 1 of row 0 has no global token"),
        ({"global": [1, 0], "segment": [0, 0]}, r"global has shape \(1, 2\), tokens have \(1, 3\)"),
    ],
)
def test_marks_that_do_not_fit_are_told(marks: dict[str, list[int]], told: str) -> None:
    model = make("etc", vocab=5, dim=8, depth=1, heads=2).build()
    with pytest.raises(ValueError, match=told):
        model(torch.zeros(1, 3, dtype=torch.int64), marks={name: torch.tensor([mark]) for name, mark in marks.items()})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"radius": 0}, "a radius of 0 leaves a long token no neighbour"),
        ({"reach": -1}, "distances cannot be clipped to -1"),
        ({"hard": ("l2l",)}, "not a tuple of one of 'g2l', 'l2g'"),
        ({"heads": 5}, "does not split into 5 heads"),
    ],
)
def test_what_cannot_be_built_is_told(arguments: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("etc", **arguments).build()


def test_a_decoder_is_refused() -> None:
    spec = make("gpt2", vocab=5, dim=8, depth=1, heads=2)
    block = spec.blocks[0].replace(sublayers=(GlobalLocalAttention(2), spec.blocks[0].sublayers[1]))
    with pytest.raises(ConfigError, match="no decoder can use it"):
        spec.replace(blocks=(block,)).build()
