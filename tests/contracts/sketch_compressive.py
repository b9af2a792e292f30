"""Compressive memory: two queues, and a loss that trains the compression alone. Rae et al. 2019, arXiv:1911.05507."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention import Pattern
from formers.attention.oracle import attend_dense
from formers.attention.project import ProjectionLayer
from formers.call import Call
from formers.memory import Memory, MemoryRule, Project, Recalled
from formers.places import Places
from formers.spec import Site


class SketchCompress(Memory):
    """The last `recent` inputs, and `old` compressed ones, each made of `ratio`; a segment leaves `recent` at once."""

    recent: int
    old: int
    segment: int
    ratio: int = 2
    loss: Literal["attention", "reconstruction"] = "attention"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.streaming:
            yield "what is compressed depends on where segments end", "memory=KeepAll()"

    def build(self, site: Site, pattern: Pattern) -> MemoryRule:
        return SketchCompressRule(self, site)


class SketchQueues(NamedTuple):
    """Inputs of the layer, not keys: they are placed anew in every call. (B, n, M) each."""

    old: Tensor
    recent: Tensor


class SketchCompressRule(MemoryRule):
    def __init__(self, spec: SketchCompress, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.squeeze = nn.Conv1d(site.dim, site.dim, spec.ratio, stride=spec.ratio)
        if spec.loss == "reconstruction":
            self.unsqueeze = nn.ConvTranspose1d(site.dim, site.dim, spec.ratio, stride=spec.ratio)

    def forward(self, x: Tensor, call: Call, past: SketchQueues | None, project: Project) -> Recalled:
        if call.at.start is None:
            raise ValueError("compressive memory needs rows without padding: cut them to whole segments")
        old, recent = past or SketchQueues(x[:, :0], x[:, :0])
        count = old.shape[1] + recent.shape[1]
        places = call.memo.once(
            ("queues", call.at, count), lambda: Places.run(call.at.start - count, count + x.shape[1], x.device)
        )
        k, v = project(torch.cat([old, recent, x], 1), places)
        recent, losses = torch.cat([recent, x], 1), []
        while recent.shape[1] >= self.spec.recent + self.spec.segment:
            leaving, recent = recent[:, : self.spec.segment], recent[:, self.spec.segment :]
            old = torch.cat([old, self.compress(leaving)], 1)[:, -self.spec.old :]
            losses.append(self.charge(x.detach(), leaving.detach(), project.projection))
        named = {"compression": torch.stack(losses).sum()} if losses else {}
        return Recalled(k, v, places, SketchQueues(old, recent), named)

    def compress(self, leaving: Tensor) -> Tensor:
        return self.squeeze(leaving.mT).mT

    def charge(self, x: Tensor, leaving: Tensor, projection: ProjectionLayer) -> Tensor:
        if self.spec.loss == "reconstruction":
            return (self.unsqueeze(self.compress(leaving).mT).mT - leaving).pow(2).mean()
        read = Frozen(projection)
        weights = {name: weight.detach() for name, weight in read.named_parameters()}
        before, after = (
            torch.func.functional_call(read, weights, (x, memory)) for memory in (leaving, self.compress(leaving))
        )
        return (after - before).pow(2).mean()


class Frozen(nn.Module):
    """Attention by content alone, whose weights can be taken as given."""

    def __init__(self, projection: ProjectionLayer) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        k, v = self.projection.keys_values(memory)
        return attend_dense(self.projection.queries(x), k, v, torch.ones(1, dtype=torch.bool))
