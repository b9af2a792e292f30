"""An agent: blocks that remember what was observed in this episode, and of what they remember a policy and a value."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention import Attention, Same, Segments
from formers.attention.marks import asks_for_marks
from formers.block import StackLayer, chain_problems
from formers.call import Call, Layer
from formers.control.agent.policy import Policy, PolicyHead
from formers.control.spaces import Choices, Numbers, Space
from formers.init import Init, LogitLinear, Xavier
from formers.norm import Norm
from formers.places import Places
from formers.products import Matrix
from formers.spec.check import check
from formers.spec.codec import to_json
from formers.spec.core import Site, Spec, parts_within

EPISODE = "episode"
THIS_EPISODE = Same(EPISODE)
LEAST = 1e-8  # the variance of a number that is always the same, and the unit where nothing is earned
SLOWLY = 0.9  # the share of the past in the unit of values


class Agent(Spec):
    """A policy and a value over observations, with memory: Parisotto et al. 2019, arXiv:1910.06764.

    name: what to call it in messages. observation, action: what it sees and does. dim: width of the stream. blocks: the
    depth, whose attention sees `THIS_EPISODE`; where it counts segments, every episode begins one. norm: after the last
    block, none in the paper. init: how parameters begin, but those of policy and value, which begin at 0.
    """

    name: str
    observation: Space
    action: Space
    dim: int
    blocks: tuple[Layer, ...]
    norm: Norm | None = None
    init: Init = Xavier()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for name in ("observation", "action"):
            if not isinstance(getattr(self, name), (Numbers, Choices)):
                yield f"no agent knows {getattr(self, name)!r}", f"{name}=Choices(2)"
        if self.dim < 1:
            yield f"a stream {self.dim} wide carries nothing", "dim=64"
        if not self.blocks:
            yield "an agent without blocks remembers nothing", "blocks=stack(Block((...)), times=2)"
        yield from chain_problems(self.blocks, self.dim, self.dim)
        for part in parts_within(self.blocks):
            if isinstance(part, Attention) and not asks_for_marks(part.pattern_at(self.inside(site))):
                what = f"{part.pattern_at(self.inside(site))!r} shows what was seen in earlier episodes"
                yield what, f"pattern=Causal() & Segments(32, 64) & {THIS_EPISODE!r}"

    @property
    def segment(self) -> int:
        """Positions that every episode's first one is a multiple of, so that its segments do not depend on what was before."""
        return math.lcm(*(part.size for part in parts_within(self.blocks) if isinstance(part, Segments)))

    @property
    def site(self) -> Site:
        return Site(dim=self.dim)

    def inside(self, site: Site) -> Site:
        return self.site.replace(causal=True, streaming=True, path=site.path)

    def to_json(self) -> str:
        """This spec as JSON, read back by `formers.spec.from_json`."""
        return to_json(self)

    def build(self) -> "AgentLayer":
        """The agent, checked first; raises ConfigError with everything that is wrong."""
        check(self, self.site, self.name)
        model = AgentLayer(self, self.inside(self.site))
        self.init.apply(model, self.dim)
        model.observations.begin()
        for head in (model.policy.linear, model.value):
            nn.init.zeros_(head.weight)
        return model


class AgentState(NamedTuple):
    """seen (B,): the position of the next step. episode (B,): the number of the present one. blocks: what each remembers."""

    seen: Tensor
    episode: Tensor
    blocks: tuple[Any, ...]


class Acted(NamedTuple):
    """The policy at each step, its value (B, T), the state that continues the call, and losses of the blocks by name."""

    policy: Policy
    value: Tensor
    state: AgentState | None
    losses: dict[str, Tensor]


class AgentLayer(nn.Module):
    """unit (): what values are told in, the root mean square of what was earned so far."""

    unit: Tensor

    def __init__(self, spec: Agent, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.observations = ObservationReader(spec.observation, spec.dim)
        self.stack = StackLayer(spec.blocks, site)
        self.norm = spec.norm.build(site) if spec.norm else None
        self.policy = PolicyHead(spec.action, spec.dim)
        self.value = LogitLinear(spec.dim, 1)
        self.register_buffer("unit", torch.ones(()))

    def forward(
        self, observations: Tensor, begins: Tensor, state: AgentState | None = None, *, remember: bool = True
    ) -> Acted:
        """observations (B, T, W) of numbers or (B, T) of choices; begins (B, T) bool: True where an episode begins.

        state: of an earlier call that this one continues. No step sees anything of an earlier episode, in the state or in
        the call. Raises ValueError for shapes that do not fit.
        """
        if begins.dim() != 2 or begins.dtype != torch.bool:
            raise ValueError(f"begins must be (batch, steps) bool, got {tuple(begins.shape)} of {begins.dtype}")
        self.spec.observation.require("observations", observations, tuple(begins.shape))
        seen, episode = (begins.new_zeros(len(begins), dtype=torch.int64),) * 2 if state is None else state[:2]
        pos, number = where(begins, seen, episode, self.spec.segment)
        call = Call(Places(pos, None, {EPISODE: number}), remember=remember)
        out = self.stack(self.observations(observations), call, None if state is None else state.blocks)
        hidden = out.y if self.norm is None else self.norm(out.y)
        after = AgentState(pos[:, -1] + 1, number[:, -1], out.state) if remember else None
        return Acted(self.policy(hidden), self.unit * self.value(hidden)[..., 0], after, out.losses)

    @torch.no_grad()
    def measure(self, earned: Tensor) -> None:
        """Between two calls: take what was earned into the unit of values, and leave the values themselves as they are.

        Whatever the scale of rewards, values are then learned at one scale (van Hasselt et al. 2016, arXiv:1602.07714).
        """
        new = (SLOWLY * self.unit.square() + (1 - SLOWLY) * earned.square().mean()).sqrt().clamp(min=LEAST)
        for parameter in self.value.parameters():
            parameter.mul_(self.unit / new)
        self.unit.copy_(new)


class ObservationReader(nn.Module):
    """From observations to the stream, (B, T, M): numbers through a hidden layer, choices by a table.

    Numbers are read as differences from the mean of all that were measured, in units of their deviation.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, space: Space, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(space.count, dim) if isinstance(space, Choices) else None
        if isinstance(space, Numbers):
            self.up, self.down = Matrix(space.width, dim), Matrix(dim, dim)
            for name, begin in (("mean", 0.0), ("square", 1.0), ("count", 0.0)):
                self.register_buffer(name, torch.full(() if name == "count" else (space.width,), begin))

    def begin(self) -> None:
        """Begin with a stream of unit scale: no norm stands between it and the policy, which would learn slowly of less."""
        if self.table is not None:
            nn.init.normal_(self.table.weight)
        else:
            nn.init.kaiming_normal_(self.up.weight, nonlinearity="linear")
            nn.init.kaiming_normal_(self.down.weight, nonlinearity="relu")

    def measure(self, observations: Tensor) -> None:
        """Take numbers (B, T, W) into their mean and deviation."""
        if self.table is not None:
            return
        seen = observations.flatten(0, -2).to(self.mean.dtype)
        self.count += len(seen)
        share = len(seen) / self.count
        self.mean.lerp_(seen.mean(0), share)
        self.square.lerp_(seen.square().mean(0), share)

    def forward(self, observations: Tensor) -> Tensor:
        if self.table is not None:
            y: Tensor = self.table(observations)
            return y
        deviation = (self.square - self.mean.square()).clamp(min=LEAST).sqrt()
        numbers = (observations.to(self.mean.dtype) - self.mean) / deviation
        read: Tensor = self.down(torch.relu(self.up(numbers)))
        return read


def where(begins: Tensor, seen: Tensor, episode: Tensor, segment: int) -> tuple[Tensor, Tensor]:
    """The positions of steps and the numbers of their episodes, (B, T) each.

    begins (B, T) bool. seen, episode (B,): the next position, and the episode of the step before. Positions go on from step
    to step, and an episode's first is the next multiple of `segment`.
    """
    steps = torch.arange(begins.shape[1], device=begins.device)
    last = torch.where(begins, steps, -1).cummax(1).values
    phase = torch.where(last >= 0, steps - last, seen[:, None] + steps)  # the position, but for multiples of segment
    before = torch.cat([seen[:, None] - 1, phase[:, :-1]], 1)
    left_out = torch.where(begins, (-before - 1) % segment, 0).cumsum(1)
    return seen[:, None] + steps + left_out, episode[:, None] + begins.cumsum(1)
