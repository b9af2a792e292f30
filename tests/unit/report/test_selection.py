"""The pairs that a selection tells are those that attention weighs."""

from typing import Any

import pytest
import torch

from formers import (
    LSH,
    MLP,
    Attention,
    Block,
    Causal,
    Decoder,
    Encoder,
    EncoderDecoder,
    Everything,
    Parallel,
    PreNorm,
    Reversible,
    Routing,
    Same,
    SelfLast,
    SharedQK,
    TopBlocks,
    Untied,
    Window,
)
from formers.attention import Pattern
from formers.attention.select import Selector
from formers.call import Call
from formers.data.tokenizer import ByteTokenizer
from formers.places import Places
from formers.report.meeting import pieces, square_of, told
from formers.report.selection import Selection, choosing_layers, selections
from formers.spec.core import Site

LENGTH, DIM = 24, 8
ALIKE: dict[str, Any] = {"position": SelfLast(), "projection": SharedQK(), "scale": 1.0}
SELECTS: dict[str, Selector] = {
    "hashing": LSH(4, 2, 4, plain_below=0),
    "hashing to one's own bucket": LSH(4, 3, 2, same_bucket=True, plain_below=0),
    "hashing as in trax": LSH(4, 2, 4, plain_below=0, wrap=True, once=False),
    "hashing, where texts are too short": LSH(4, 2, 4),
    "strict hashing": LSH(4, 2, 4, strict=True),
    "routing": Routing(3, window=4),
    "balanced routing": Routing(3, window=6, balanced=True),
    "balanced routing of keys": Routing(3, window=6, balanced=True, joint=False),
    "blocks": TopBlocks(4, 1),
}


def attention(select: Selector, pattern: Pattern | None = None, heads: int = 2) -> Attention:
    return Attention(heads, head_dim=4, pattern=pattern, select=select, **(ALIKE if select.of_keys else {}))


def model(*blocks: Any, vocab: int = 256) -> Any:
    torch.manual_seed(0)
    return Decoder("small", vocab, DIM, tuple(blocks), head=Untied()).build().eval()


def weighed(layer: Any, x: torch.Tensor, head: int, tokens: int) -> torch.Tensor:
    """Which values reach the output of each query in a head, told by the gradient of its values: (T, T)."""
    values: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: Any, out: torch.Tensor) -> torch.Tensor:
        values.append(out.detach().requires_grad_())
        return values[-1]

    hook = layer.projection.v_proj.register_forward_hook(keep)
    y = []
    layer.projection.out_proj.register_forward_pre_hook(lambda module, given: y.append(given[0]))
    layer(x, Call(Places.run(0, tokens)))
    hook.remove()
    width = slice(head * 4, head * 4 + 4)
    rows = [torch.autograd.grad(y[0][0, t, width].sum(), values[0], retain_graph=True)[0] for t in range(tokens)]
    return torch.stack([row[0, :, width].abs().sum(-1) for row in rows])


@pytest.mark.parametrize("pattern", [Causal(), Everything(), Causal() & Window(9)], ids=repr)
@pytest.mark.parametrize("name", SELECTS)
def test_pairs_are_those_that_weigh(name: str, pattern: Pattern) -> None:
    torch.manual_seed(1)
    site = Site(dim=DIM, causal=pattern.causal)
    layer: Any = attention(SELECTS[name], pattern).build(site).eval()
    x, at = torch.randn(1, LENGTH, DIM), Places.run(0, LENGTH)
    selection = Selection("layer", layer, at, layer(x, Call(at)).choices)
    for head in range(2):
        seen = torch.zeros(LENGTH * LENGTH, dtype=torch.bool)
        seen[selection.pairs(head)] = True
        seen = seen.view(LENGTH, LENGTH)
        others = ~torch.eye(LENGTH, dtype=torch.bool)  # oneself may be met, and weigh nothing beside others
        assert torch.equal((weighed(layer, x, head, LENGTH) > 0)[others], seen[others])


def test_layers_are_found_wherever_they_stand() -> None:
    local, chosen = Attention(2), attention(TopBlocks(4, 1), heads=1)
    side_by_side = Parallel((Attention(1, head_dim=4), chosen))
    inside = Reversible((Block((local, MLP(8))), Block((chosen, MLP(8)))), "mean")
    built = model(Block((local,)), Block((side_by_side,)), Block((chosen,)), inside)
    paths = [
        "blocks[1].sublayers[0].layers[1]",
        "blocks[2].sublayers[0]",
        "blocks[3].blocks[1].sublayers[0]",
    ]
    assert [path for path, _ in choosing_layers(built)] == paths
    assert [selection.path for selection in selections(built, list(b"where are they?"))] == paths


def test_both_sides_of_an_encoder_decoder_read_the_text() -> None:
    block = (Block((attention(TopBlocks(4, 1)),), PreNorm()),)
    spec = EncoderDecoder("two", Encoder("two.source", 256, DIM, block), Decoder("two.target", 256, DIM, block))
    found = selections(spec.build().eval(), list(b"reads it twice"))
    assert [selection.path for selection in found] == ["source.blocks[0].sublayers[0]", "target.blocks[0].sublayers[0]"]
    pairs = [selection.pairs(0) for selection in found]
    assert bool((pairs[0] % 14 > pairs[0] // 14).any()) and not bool((pairs[1] % 14 > pairs[1] // 14).any())


def test_heads_worked_on_one_by_one_choose_as_ever() -> None:
    block = Block((attention(LSH(4, 2, 4, plain_below=0)),))
    apart = Block((attention(LSH(4, 2, 4, plain_below=0)).replace(heads_at_once=1),))
    for stacked in ((block, apart), (Reversible((block,)), Reversible((apart,)))):
        one, other = (selections(model(part), list(range(30)))[0] for part in stacked)
        for head in range(2):
            assert torch.equal(one.pairs(head), other.pairs(head))


def test_looking_changes_nothing() -> None:
    built = model(Block((attention(TopBlocks(4, 1)),)))
    before = built(torch.arange(20)[None]).logits
    selections(built, list(range(20)))
    assert not any(module._forward_hooks for module in built.modules())
    torch.testing.assert_close(built(torch.arange(20)[None]).logits, before, rtol=0, atol=0)


def test_a_pattern_that_reads_marks_sees_one_document() -> None:
    (selection,) = selections(model(Block((attention(TopBlocks(4, 9), Causal() & Same("document")),))), list(range(10)))
    assert len(selection.pairs(0)) == 10 * 11 / 2 == selection.shown()


def test_groups_are_buckets_clusters_and_members() -> None:
    for select in (LSH(4, 2, 4, plain_below=0), Routing(3, window=4)):
        (selection,) = selections(model(Block((attention(select),))), list(range(20)))
        groups = selection.groups(1)
        assert sorted(token for group in groups for token in group) == list(range(20))
        assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
        bucket = selection.choices[0, 1, 0]
        assert all(len({int(bucket[token]) for token in group}) == 1 for group in groups)
    (selection,) = selections(model(Block((attention(Routing(3, window=6, balanced=True)),))), list(range(20)))
    assert [len(group) for group in selection.groups(0)] == [6, 6, 6]
    (selection,) = selections(model(Block((attention(TopBlocks(4, 1)),))), list(range(20)))
    assert selection.groups(0) == []


def test_what_meets_is_told() -> None:
    (selection,) = selections(model(Block((attention(TopBlocks(4, 1)),))), list(b"abcdefgh"))
    names = pieces(ByteTokenizer(), b"abcdefgh")
    assert names[0] == "'a'"
    assert told(selection, 1, names) == [
        "36 pairs meet, 100.0% of those that Causal() shows: 4.5 keys to a query, in the mean",
        "of each head: 100.0%, 100.0%",
    ]
    square = square_of(selection, 1, names)
    assert (square.title, square.scale) == ("TopBlocks(block=4, count=1) within Causal(), head 1", "8 tokens")
    torch.testing.assert_close(square.share, torch.ones(8, 8).tril())


def test_a_long_text_is_drawn_in_cells() -> None:
    (selection,) = selections(model(Block((attention(LSH(4, 2, 4, plain_below=0)),))), [7] * 65)
    square = square_of(selection, 0, ["'7'"] * 65)
    assert (len(square.share), square.names) == (32, ())
    assert square.top == float(square.share.max())
    assert told(selection, 0, ["'7'"] * 65)[-1] == "  65 tokens: '7' x 65"


def test_a_text_too_short_to_choose_in_is_told() -> None:
    (selection,) = selections(model(Block((attention(LSH(4, 2, 4)),))), list(range(16)))
    assert selection.plan is None
    title = square_of(selection, 0, ["x"] * 16).title
    assert title.startswith("all that Causal() shows: LSH(") and "nothing in texts of up to 16 tokens" in title


def test_a_piece_is_text_or_bytes_or_a_number() -> None:
    assert pieces(ByteTokenizer(), [*"é\n".encode(), 256]) == ["'\\xc3'", "'\\xa9'", "'\\n'", "<256>"]
