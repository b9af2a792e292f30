"""Decision Transformer: what random walks never did on purpose, it does when it is asked to; cloning them does not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.graph_task import Graph
from formers.control.decision.asked import Reached, plot_reached
from formers.control.decision.task import Decisions
from formers.family import make
from formers.report.rows import Row, value_at_least, value_at_most
from formers.train import AdamW, CosineDecay, TrainSpec
from formers.train.task import Batch
from formers.train.update import Updater


class Cloning(Decisions):
    """The same windows with nothing told of returns: behaviour cloning."""

    def batch(self, step: int) -> Batch:
        batch = super().batch(step)
        return batch | {"returns": torch.zeros_like(batch["returns"])}


@dataclass(frozen=True)
class Sizes:
    """walks: that there are to learn from; tried: walks of each model, from each node."""

    walks: int = 4000
    tried: int = 50
    steps: int = 1200
    rows: int = 64
    dim: int = 48
    depth: int = 2


TINY = Sizes(walks=40, tried=2, steps=4, rows=4, dim=16)


@CLAIMS.case(
    "decision_transformer",
    "the shortest way to a node, learned from random walks of 10 steps on a graph of 20 nodes (arXiv:2106.01345)",
    unit="steps",
    better="lower",
    rival=Rival("behaviour cloning"),
)
def decision_transformer(trial: Trial) -> Iterator[Row]:
    """Asked for the shortest way, for failure, and for all between, beside the same net that is told of no returns.

    A picture of reached against asked return is left in the claim's folder.
    """
    sizes, graph = TINY if trial.quick else Sizes(), Graph()
    with trial.progress("", 2 * sizes.steps) as tick:
        tick(0, "asking")
        asked = learned(Decisions, graph, sizes, tick)
        tick(0, "cloning")
        cloned = learned(Cloning, graph, sizes, tick)
    starts = torch.arange(1, graph.nodes).repeat(sizes.tried)
    best = -graph.distance[starts].float()
    found, blind = graph.walk(asked, starts, best), graph.walk(cloned, starts, best, blind=True)
    failed = graph.walk(asked, starts, torch.full_like(best, graph.failure))
    note = f"the random walks themselves: {excess(*walked(graph, sizes)):.2f}"
    yield trial.row("excess over the shortest way", excess(found, best), excess(blind, best), goal=value_at_most(0.3))
    yield trial.row(
        "excess of behaviour cloning", excess(blind, best), goal=value_at_least(3), better="higher", note=note
    )
    share: dict[str, Any] = {"unit": "of walks arrive", "better": "higher"}
    arrived = [float((returns > graph.failure).float().mean()) for returns in (found, blind, failed)]
    yield trial.row("asked for the shortest way", arrived[0], arrived[1], goal=value_at_least(0.95), **share)
    told = "it can fail on purpose, too"
    yield trial.row(
        "asked for failure", arrived[2], arrived[1], goal=value_at_most(0.1), note=told, **share | {"better": "lower"}
    )
    picture = trial.keep("reached.png")
    plot_reached(at_every_return(graph, asked, sizes.tried), picture, "random walks on a graph of 20 nodes")
    trial.console.print(f"picture: {picture}", highlight=False)


def learned(kind: type[Decisions], graph: Graph, sizes: Sizes, tick: Callable[[], object]) -> nn.Module:
    """A model that has learned from random walks, with or without their returns."""
    walks = graph.random_walks(sizes.walks)
    training = TrainSpec(
        sizes.steps, sizes.rows, graph.longest, optimizer=AdamW(3e-3), schedule=CosineDecay(min(100, sizes.steps), 0.0)
    )
    chosen = {"observation": walks.observation, "action": walks.action, "dim": sizes.dim, "depth": sizes.depth}
    spec = make(
        "decision_transformer",
        **chosen,
        heads=4,
        context=graph.longest,
        horizon=graph.longest,
        return_scale=float(graph.longest),
        dropout=0.0,
    )
    task = kind(walks, training)
    task.require(spec)
    torch.manual_seed(training.seed)
    model: nn.Module = spec.build().train()
    update = Updater(model, task, training, training.optimizer.build(model), torch.device("cpu"))
    for step in range(1, sizes.steps + 1):
        update(step)
        tick()
    return model.eval()


def excess(returns: Tensor, best: Tensor) -> float:
    """Steps more than the shortest way takes, in the mean over walks; one that does not arrive counts one step more than it
    may have."""
    return float((best - returns).mean())


def walked(graph: Graph, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """The returns of the walks that are learned from, and of the shortest ways from where they began."""
    walks = graph.random_walks(sizes.walks)
    return walks.returns, -graph.distance[walks.observations[walks.starts]].float()


def at_every_return(graph: Graph, model: nn.Module, tried: int) -> list[Reached]:
    """What is reached for every return that can be asked for, from the nodes whose way is short enough."""
    found = []
    for steps in range(1, graph.longest + 2):
        starts = (graph.distance.clamp(min=1) <= steps).nonzero()[1:, 0].repeat(tried)
        returns = graph.walk(model, starts, torch.full(starts.shape, -float(steps)))
        found.append(Reached(-float(steps), tuple(returns.tolist())))
    return found
