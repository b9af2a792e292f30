"""The graph task: random walks on a small graph, and finding the shortest way to one of its nodes by what they tell.

Chen et al. 2021, arXiv:2106.01345, section "Illustrative example".
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from formers.control.decision.actor import Actor
from formers.control.spaces import Choices
from formers.control.trajectories import Trajectories
from formers.data.chance import generator

GOAL = 0


@dataclass(frozen=True)
class Graph:
    """A connected graph of `nodes`, with `edges` more than a random tree needs; a walk has `longest` steps.

    Who walks sees a node and names the next one; naming what is no neighbour costs a step and leads nowhere. A step earns
    -1, and the last one -1 more where it does not end at node 0: there the walk ends.
    """

    nodes: int = 20
    edges: int = 9
    longest: int = 10
    seed: int = 0

    @cached_property
    def near(self) -> Tensor:
        """(nodes, nodes) bool: which nodes are neighbours."""
        chance = generator(self.seed, 0)
        near = torch.zeros(self.nodes, self.nodes, dtype=torch.bool)
        for node in range(1, self.nodes):
            near[node, int(torch.randint(node, (), generator=chance))] = True
        free = (~near).tril(-1).nonzero()
        more = free[torch.randperm(len(free), generator=chance)[: self.edges]]
        near[more[:, 0], more[:, 1]] = True
        return near | near.T

    @cached_property
    def distance(self) -> Tensor:
        """(nodes,) int64: steps of the shortest way from each node to node 0."""
        reached = torch.arange(self.nodes) == GOAL
        distance = torch.zeros(self.nodes, dtype=torch.int64)
        while not reached.all():
            distance += ~reached
            reached = reached | self.near[reached].any(0)
        return distance

    @property
    def failure(self) -> float:
        """The return of a walk that does not arrive."""
        return -self.longest - 1.0

    def move(self, node: Tensor, named: Tensor) -> Tensor:
        """Where walks at `node` (B,) are after naming a node each."""
        return torch.where(self.near[node, named], named, node)

    def starts(self, walks: int, chance: torch.Generator) -> Tensor:
        """(walks,): any node but the last one of a walk."""
        return torch.randint(1, self.nodes, (walks,), generator=chance)

    def random_walks(self, walks: int) -> Trajectories:
        """What so many walks to random neighbours saw, did and earned."""
        chance = generator(self.seed, 1)
        node, seen, done = self.starts(walks, chance), [], []
        for _ in range(self.longest):
            seen.append(node)
            done.append(torch.multinomial(self.near[node].float(), 1, generator=chance)[:, 0])
            node = done[-1]
        went, named = torch.stack(seen, 1), torch.stack(done, 1)
        length = steps_of(named)
        walked = torch.arange(self.longest) < length[:, None]
        arrived = (named == GOAL).any(1)
        rewards = torch.full(walked.shape, -1.0)
        rewards[~arrived, -1] -= 1
        nodes = Choices(self.nodes)
        return Trajectories(
            None,
            nodes,
            nodes,
            went[walked],
            named[walked],
            rewards[walked],
            length.cumsum(0),
            arrived,
            torch.zeros(walks, dtype=torch.int64),
            ("random walk",),
        )

    def walk(self, model: Any, starts: Tensor, wanted: Tensor, *, blind: bool = False) -> Tensor:
        """The returns (B,) of walks by a model, from nodes (B,), each asked for a return (B,). blind: it is told 0 throughout.

        Nodes are drawn as likely as the model says, for a cloned walk would never come home if it took the likeliest.
        """
        actor = Actor(model, wanted * (not blind), temperature=1.0, seed=self.seed)
        node, named = starts, []
        for _ in range(self.longest):
            node = self.move(node, actor.act(node))
            named.append(node)
            actor.earn(torch.full(node.shape, 0.0 if blind else -1.0))
        arrived = torch.stack(named, 1)
        length = steps_of(arrived)
        return -(length + ~(arrived == GOAL).any(1)).float()


def steps_of(nodes: Tensor) -> Tensor:
    """How many steps walks over nodes (B, longest) took: up to the first that led to node 0, or all of them."""
    home = nodes == GOAL
    return torch.where(home.any(1), home.int().argmax(1) + 1, nodes.shape[1])
