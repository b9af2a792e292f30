"""The claims on members whose attention goes by content, and on reversible stacks, at their smallest."""

import io
import itertools

import pytest
import torch
from rich.console import Console

from formers import Attention, SharedQK, claim
from formers.attention.routing import Routing
from formers.call import Call
from formers.claim.at_random import BlocksAtRandom, RandomClusters
from formers.claim.cases.reformer import EVALUATED, Setting
from formers.claim.cases.routing import moved
from formers.places import Places
from formers.spec import Site


def run(name: str) -> list:
    rows = claim.run(name, console=Console(file=io.StringIO(), width=160), quick=True)
    assert all(row.value is not None and row.value >= -1 for row in rows)
    return rows


def test_reformer_tells_a_table_its_rises_and_its_fall() -> None:
    *rows, gain, loss, robust = run("reformer")
    table = {row.name: row for row in rows if ", evaluated with " in row.name}
    value = {name: row.value for name, row in table.items()}
    assert len(table) == 2 * len(EVALUATED)
    assert [name for name, row in table.items() if row.goal] == ["trained with 4 hashes, evaluated with 8 hashes"]
    assert (str(gain.goal), str(loss.goal)) == ("value <= 0.01", "value >= 0.02")
    hashed = [value[name] for name in value if name.startswith("trained with 4") and "pairs" not in name]
    steps = [fewer - more for more, fewer in itertools.pairwise(hashed)]
    assert gain.value == pytest.approx(max(0.0, *steps))
    of_pairs = "trained with all pairs, evaluated with"
    assert loss.value == pytest.approx(value[f"{of_pairs} all pairs"] - value[f"{of_pairs} 1 hash"])
    of_hashes = "trained with 4 hashes, evaluated with 1 hash"
    assert robust.value == pytest.approx(value[of_hashes] - value[f"{of_pairs} 1 hash"])
    assert robust.note.count(",") == 1 and table[f"{of_pairs} 8 hashes"].rival_value == 0.948


def test_reformer_tells_what_it_costs_to_know_the_past_alone() -> None:
    rows = {row.name: row for row in run("reformer")}
    learned = [row.value for name, row in rows.items() if "that learned" in name]
    assert len(learned) == 2 and all(0 <= count <= 2 for count in learned)
    changed = "earlier tokens that another last one changes"
    assert rows[f"4 hashes, hashing: {changed}"].value > 0
    assert rows[f"4 hashes, strict hashing: {changed}"].met
    strict = "4 hashes, strict hashing"
    assert rows[f"{strict}, in one pass"].value == rows[f"{strict}, token by token"].value


def test_reformer_hashes_even_where_that_does_not_pay() -> None:
    setting = Setting()
    attention = setting.attention(4).build(Site(dim=64, causal=True))
    places = Places.run(0, setting.copier.task.length)
    q = torch.randn(1, 2, places.length, 32)
    call = Call(places)
    assert attention.select.plan(attention.select.choose(q, q, call, places).choices, places, places) is not None


def test_routing_compares_five_kinds_of_heads_and_counts_what_leaks() -> None:
    rows = {row.name: row for row in run("routing")}
    assert rows["what knowing the past alone costs: balanced above routed"].value == pytest.approx(
        rows["local and routed heads, balanced as published"].value - rows["local and routed heads"].value
    )
    assert rows["routed above local"].value == pytest.approx(
        rows["local and routed heads"].value - rows["local heads"].value
    )
    leaks = {name: row for name, row in rows.items() if name.startswith("earlier outputs")}
    published, strict = leaks.values()
    assert published.value > 20 and published.goal is None
    assert strict.value == 0 and strict.met


def test_a_selection_of_everything_leaks_nothing_even_if_it_is_balanced() -> None:
    assert moved(Routing(1, 1000, balanced=True)) == 0


def test_sinkhorn_compares_what_a_block_meets() -> None:
    rows = {row.name: row for row in run("sinkhorn")}
    ours, chance = (rows[f"own block and a {how}"].value for how in ("sorted one, 1 iteration", "random one"))
    assert rows["sorted above random"].value == pytest.approx(ours - chance)


def test_reversible_keeps_the_same_at_every_depth_and_fails_without_a_replay() -> None:
    rows = {row.name: row for row in run("reversible")}
    four, eight = rows["kept by autograd, 4 blocks"], rows["kept by autograd, 8 blocks"]
    assert four.value == eight.value == 2 * 64 * 32 * 4 / 1e3
    assert 1.9 < eight.rival_value / four.rival_value < 2.1
    assert all(row.met for row in rows.values() if row.goal)
    assert rows["the same, dropout 0.5, drawn anew"].value > 0.1


def seen_by(select: object, seed: int) -> torch.Tensor:
    """Which tokens (24, 24) of a causal layer's input its outputs depend on."""
    torch.manual_seed(0)
    attention = Attention(1, select=select, projection=SharedQK(), scale=1.0)
    layer = attention.build(Site(dim=4, causal=True))
    x = torch.randn(1, 24, 4)
    call = Call(Places.run(0, 24), seed=seed, remember=False)
    return torch.autograd.functional.jacobian(lambda x: layer(x, call).y.sum(-1)[0], x)[:, 0].abs().sum(-1) > 0


def test_random_blocks_meet_their_own_and_one_earlier_block() -> None:
    seen = seen_by(BlocksAtRandom(4, 1), seed=0)
    blocks = seen.unflatten(1, (6, 4)).any(-1)
    assert torch.equal(seen, seen.tril())
    assert blocks.sum(1).tolist() == [1] * 4 + [2] * 20
    assert not torch.equal(seen, seen_by(BlocksAtRandom(4, 1), seed=1))


def test_random_clusters_split_the_tokens_whatever_these_are() -> None:
    seen = seen_by(RandomClusters(3, 24), seed=0)
    met = seen | seen.T
    assert torch.equal(seen, seen.tril())
    assert torch.equal((met.double() @ met.double()) > 0, met) and len(met.unique(dim=0)) == 3
    assert not torch.equal(seen, seen_by(RandomClusters(3, 24), seed=1))
