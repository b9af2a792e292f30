"""The graph task of the claim on the Decision Transformer, and the claim itself at sizes that mean nothing."""

import io
from collections import deque
from pathlib import Path

import torch
from rich.console import Console

from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.claim.cases.decision_transformer import Cloning, excess
from formers.claim.graph_task import GOAL, Graph, steps_of
from formers.control.decision.task import Decisions
from formers.train import TrainSpec

GRAPH = Graph()


def test_the_graph_is_connected_and_its_distances_are_right() -> None:
    near = GRAPH.near
    assert torch.equal(near, near.T) and not near.diagonal().any() and int(near.sum()) // 2 == 28
    found, waiting = {GOAL: 0}, deque([GOAL])
    while waiting:
        node = waiting.popleft()
        for other in near[node].nonzero()[:, 0].tolist():
            if other not in found:
                found[other] = found[node] + 1
                waiting.append(other)
    assert [found[node] for node in range(20)] == GRAPH.distance.tolist()
    assert max(found.values()) == 3


def test_walks_go_along_edges_and_end_at_the_goal() -> None:
    walks = GRAPH.random_walks(300)
    walks.require("the walks")
    assert walks.lengths.max() == 10 and 0.2 < walks.terminated.float().mean() < 0.5
    assert GRAPH.near[walks.observations, walks.actions].all() and not (walks.observations == GOAL).any()
    for start, end, home, earned in zip(walks.starts, walks.ends, walks.terminated, walks.returns, strict=True):
        assert torch.equal(walks.actions[start : end - 1], walks.observations[start + 1 : end])
        assert bool(walks.actions[end - 1] == GOAL) == bool(home)
        assert earned == (start - end if home else GRAPH.failure)


def test_steps_are_counted_to_the_first_time_at_the_goal() -> None:
    assert steps_of(torch.tensor([[3, 0, 0], [1, 2, 0], [1, 2, 3], [0, 4, 0]])).tolist() == [2, 3, 3, 1]


def test_naming_what_is_no_neighbour_leads_nowhere() -> None:
    far = int(GRAPH.distance.argmax())
    assert GRAPH.move(torch.tensor([far]), torch.tensor([GOAL])).tolist() == [far]
    assert excess(torch.tensor([-2.0, -5.0]), torch.tensor([-2.0, -3.0])) == 1.0


def test_cloning_is_told_no_returns() -> None:
    walks, training = GRAPH.random_walks(30), TrainSpec(1, 8, 10)
    ours, cloned = (kind(walks, training).batch(1) for kind in (Decisions, Cloning))
    assert ours["returns"].any() and not cloned["returns"].any()
    assert all(torch.equal(ours[name], cloned[name]) for name in ours if name != "returns")


def test_the_claim_runs(tmp_path: Path) -> None:
    (case,) = CLAIMS.find("decision_transformer")
    trial = Trial(case, Console(file=io.StringIO()), quick=True, folder=tmp_path)
    rows = list(case.measure(trial))
    assert [row.goal is not None for row in rows] == [True] * 4
    assert all(row.value is not None and row.value >= 0 for row in rows)
    assert (tmp_path / "reached.png").read_bytes().startswith(b"\x89PNG")
