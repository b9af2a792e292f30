"""The Universal Transformer's depth: one block, applied to each token as often as it needs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from formers.call import Call, Encoded, Layer, Out, add_losses, add_records, skip
from formers.depth.halting import ACT, Halting
from formers.depth.partly import partly, partly_problems
from formers.places import Places
from formers.position import AbsolutePosition, Sinusoidal
from formers.position.absolute import sinusoid
from formers.spec.core import Site
from formers.state import Log


class Universal(Layer):
    """`block` up to `steps` times, always with the same parameters. Dehghani et al. 2018, arXiv:1807.03819.

        x_t = s_(t-1) + position + time(t),   s_t = block(x_t),   t = 1 .. steps

    The signals are added before every step, not once. position: absolute positions; None: the block's attention tells
    them. time: a "sinusoidal" of t, or a "learned" vector for each step, as in the code of the paper. The paper's block is
    `PostNorm`.

    halting: which steps a token needs; None: it takes all of them, and the output is s_steps. A step that no token of the
    call needs is not run. With ACT(halted="copied") a token that has halted is not worked on either: in inference
    feed-forwards are run for the others alone, and a block that nobody needs makes keys and values only. With "transformed"
    every token goes through each step that one of them needs, or a later one in decoding; see `Depths`.

    Records "steps", (B, T) int64: how many each token took, 0 at padding; with `halting=None` there are none.
    """

    block: Layer
    steps: int = 6
    halting: ACT | None = ACT()
    position: AbsolutePosition | None = Sinusoidal()
    time: Literal["sinusoidal", "learned"] = "sinusoidal"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.steps < 1:
            yield f"a block applied {self.steps} times does nothing", "steps=6"
        if {self.block.in_dim(site.dim), self.block.out_dim(site.dim)} != {site.dim}:
            what = f"a {type(self.block).__name__} does not go from one stream {site.dim} wide to another"
            yield f"{what}, and cannot be applied to what it puts out", 'merge="mean", streams="copied"'
        if self.time == "sinusoidal" and site.dim % 2:
            yield f"sines and cosines come in pairs, but dim is {site.dim}", 'time="learned"'
        if self.halting is not None and self.halting.halted == "copied":
            yield from partly_problems(self.block)

    @property
    def max_length(self) -> int | None:
        return None if self.position is None else self.position.max_length

    def build(self, site: Site) -> nn.Module:
        return UniversalLayer(self, site)


class Waiting(NamedTuple):
    """Tokens that stand before a step which nobody has needed since they came: their states (B, 1, T, M), and where they
    stand."""

    states: Log
    places: Places


class Depths(NamedTuple):
    """What the block remembers at each step, and the tokens that wait before each.

    A token that needs a step must meet there what came before it, so those that wait go through the step first: all at
    once, and only when somebody comes. Until then a state of M numbers is kept of each. encoded: of the first call, for a
    step that comes later to attend to.
    """

    blocks: tuple[Any, ...]
    waiting: tuple[Waiting | None, ...]
    encoded: Encoded | None = None


class Taken(NamedTuple):
    """Choices: of the block, for the tokens of the call and for those that waited, at each step that was run; and the steps
    at which tokens halted, (B, T)."""

    blocks: tuple[tuple[Any, Any], ...]
    halts: Tensor | None


class UniversalLayer(nn.Module):
    def __init__(self, spec: Universal, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.block = spec.block.build(site.part(0))
        self.halting = spec.halting.build(site) if spec.halting else None
        self.position = spec.position.build(site) if spec.position else None
        self.time = nn.Embedding(spec.steps, site.dim) if spec.time == "learned" else None
        self.copies = spec.halting is not None and spec.halting.halted == "copied"

    def forward(self, x: Tensor, call: Call, state: Depths | None = None, choices: Taken | None = None) -> Out:
        nothing = (None,) * self.spec.steps
        past = state or Depths(nothing, nothing)
        call = call if call.encoded else replace(call, encoded=past.encoded)
        run = Run(self, x, call, past, choices)
        while run.wanted():
            run.step()
        return run.out()

    def placed(self, x: Tensor, call: Call, step: int) -> Tensor:
        """x (B, T, M) with the signals of its positions and of the step, counted from 0."""
        x = x if self.position is None else self.position(x, call)
        if self.time is not None:
            return x + self.time.weight[step].to(x.dtype)
        return x + sinusoid(torch.tensor(step + 1, device=x.device), x.shape[-1], "interleaved", x.dtype)


class Run:
    """One call: tokens x (B, T, M) on their way through the steps, and those that wait for them to come."""

    def __init__(self, layer: UniversalLayer, x: Tensor, call: Call, past: Depths, choices: Taken | None) -> None:
        self._layer, self._x, self._call = layer, x, call
        self._blocks, self._waiting = list(past.blocks), list(past.waiting)
        self._chosen, self._outs = choices, list[Out]()
        self._taken: list[tuple[Any, Any]] = []
        self._halting: Halting | None = None
        if layer.spec.halting is not None:
            self._halting = Halting(layer.spec.halting, x, call.at, choices and choices.halts)

    @property
    def _at(self) -> int:
        """The step that comes next, counted from 0."""
        return len(self._taken)

    def wanted(self) -> bool:
        """Whether some token needs another step, and there is one."""
        running = self._halting is None or bool(self._halting.running.any())
        return running and self._at < self._layer.spec.steps

    def step(self) -> None:
        """Bring those that wait through the step, and then the tokens of this call."""
        t, before = self._at, None
        chosen = self._chosen.blocks[t] if self._chosen else (None, None)
        waiting, self._waiting[t] = self._waiting[t], None
        if waiting is not None:
            before = self._brought(waiting, chosen[1])
        placed = self._layer.placed(self._x, self._call, t)
        if self._halting is None:
            out = self._layer.block(placed, self._call, self._blocks[t], chosen[0])
            self._x = out.y
        else:
            out = self._halt(self._halting, placed, chosen[0])
        self._blocks[t] = out.state
        self._outs.append(out)
        self._taken.append((out.choices, before))

    def _halt(self, halting: Halting, placed: Tensor, chosen: Any) -> Out:
        """The step for the tokens of this call, of which some may have halted or halt in it."""
        layer, past, running = self._layer, self._blocks[self._at], halting.running
        assert layer.halting is not None
        weight = halting.weigh(layer.halting(placed))
        if layer.copies:
            out: Out = partly(layer.block, placed, self._call, past, chosen, running)
            self._x = torch.where(running[..., None], out.y, self._x)
        else:
            out = layer.block(placed, self._call, past, chosen)
            self._x = out.y
        halting.take(self._x, weight)
        return out

    def _brought(self, waiting: Waiting, chosen: Any) -> Any:
        """Have the block meet tokens that waited at this step, and let them wait at the next; the block's choices."""
        layer, t, x = self._layer, self._at, waiting.states.view[:, 0]
        call = self._call.with_places(waiting.places)
        placed = layer.placed(x, call, t)
        if layer.copies:
            self._blocks[t], choices = skip(layer.block, placed, call, self._blocks[t]), None
        else:
            out = layer.block(placed, call, self._blocks[t], chosen)
            self._blocks[t], choices, x = out.state, out.choices, out.y
            self._outs.append(out)
        if t + 1 < layer.spec.steps:
            self._wait(t + 1, x, waiting.places)
        return choices

    def _wait(self, t: int, x: Tensor, at: Places) -> None:
        """Put tokens x (B, T, M) behind those that wait before a step."""
        ahead = self._waiting[t]
        if ahead is None:
            self._waiting[t] = Waiting(Log(x[:, None]), at)
        else:
            self._waiting[t] = Waiting(ahead.states.extend(x[:, None]), ahead.places.join(at))

    def out(self) -> Out:
        """What comes out of all steps that were run."""
        halting, steps, call = self._halting, self._layer.spec.steps, self._call
        losses = add_losses(*(out.losses for out in self._outs))
        records = add_records(*(out.records for out in self._outs))
        if halting is not None:
            losses = add_losses(losses, {"ponder": halting.cost()})
            records = add_records(records, {"steps": (halting.steps,)})
        state = None
        if call.remember:
            if self._at < steps:
                self._wait(self._at, self._x, call.at)
            unmet = call.encoded if any(past is None for past in self._blocks) else None
            state = Depths(tuple(self._blocks), tuple(self._waiting), unmet)
        chosen = any(choice is not None for each in self._taken for choice in each)
        halts = None if halting is None else halting.halts
        choices = Taken(tuple(self._taken), halts) if chosen or halting is not None else None
        return Out(self._x if halting is None else halting.output, state, losses, choices, records)
