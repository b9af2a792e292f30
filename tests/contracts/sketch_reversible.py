"""A reversible stack that keeps nothing but its last two streams, seeds and choices. RevNet, arXiv:1707.04585; Reformer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from formers import Block
from formers.call import Call, Layer, Out, add_losses
from formers.residual import Residual, ResidualRule, Sublayer
from formers.spec import Site


class SketchBranch(Residual):
    """dropout(f(norm(x))) without the stream itself: one half of a reversible block adds it to the other stream."""

    def build(self, site: Site, count: int) -> ResidualRule:
        return SketchBranchRule(self, site, count)


class SketchBranchRule(ResidualRule):
    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> Tensor:
        for norm, sublayer in zip(self.norms, sublayers, strict=True):
            x = self.dropout(sublayer(norm(x)))
        return x


class SketchReversible(Layer):
    """x1, x2 = x, x; then x1, x2 = x2, x1 + f(x2) for each branch f; the mean of the two leaves."""

    branches: tuple[Block, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        for branch in self.branches:
            if not isinstance(branch.residual, SketchBranch):
                yield f"{branch.residual!r} adds the stream a second time", "residual=SketchBranch()"

    def build(self, site: Site) -> nn.Module:
        return SketchReversibleLayer(self, site)


class SketchReversibleLayer(nn.Module):
    def __init__(self, spec: SketchReversible, site: Site) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch.build(site.part(i)) for i, branch in enumerate(spec.branches))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        none = (None,) * len(self.branches)
        run = Run(list(self.branches), call, state or none, choices or none)
        hidden = None if call.encoded is None else call.encoded.hidden
        x1, x2, *losses = Recompute.apply(run, x, x, hidden, *self.parameters())
        names = [name for out in run.outs for name in out.losses]
        named = add_losses(*({name: loss} for name, loss in zip(names, losses, strict=True)))
        return Out((x1 + x2) / 2, tuple(o.state for o in run.outs), named, tuple(o.choices for o in run.outs))


class Run:
    """One pass through the branches, and what must be known to go through it again."""

    def __init__(self, branches: list[nn.Module], call: Call, state: Any, choices: Any) -> None:
        self.branches, self.call, self.state, self.choices = branches, call, state, choices
        self.outs: list[Out] = []
        self.chance: list[Tensor] = []

    def forth(self, i: int, x: Tensor) -> Out:
        self.chance.append(torch.get_rng_state())
        out = self.branches[i](x, self.call, self.state[i], self.choices[i])
        self.outs.append(out._replace(y=x.new_empty(0)))  # the output itself is not kept
        return out

    def again(self, i: int, x: Tensor, hidden: Tensor | None) -> Out:
        call = self.call
        if call.encoded is not None:
            call = replace(call, encoded=call.encoded._replace(hidden=hidden))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(self.chance[i])
            return self.branches[i](x, call, self.state[i], self.outs[i].choices)


class Recompute(torch.autograd.Function):
    """Whatever a gradient must reach goes in by name: the streams, the encoder's output, the parameters."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, run: Run, x1: Tensor, x2: Tensor, hidden: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        for i in range(len(run.branches)):
            x1, x2 = x2, x1 + run.forth(i, x2).y
        ctx.run, ctx.parameters = run, parameters
        ctx.save_for_backward(x1, x2, hidden)
        return x1, x2, *(loss for out in run.outs for loss in out.losses.values())

    @staticmethod
    def backward(ctx: Any, g1: Tensor, g2: Tensor, *g_losses: Tensor) -> tuple[Tensor | None, ...]:
        run, (x1, x2, hidden), pending = ctx.run, ctx.saved_tensors, list(g_losses)
        hidden = hidden if hidden is None else hidden.detach().requires_grad_()
        grads: dict[Tensor, Tensor] = {}
        for i in reversed(range(len(run.branches))):
            x1, x2, g1, g2 = x2, x1, g2, g1
            seen, others = x2.detach().requires_grad_(), list(run.branches[i].parameters())
            others += [] if hidden is None else [hidden]
            out = run.again(i, seen, hidden)
            ends = [out.y, *out.losses.values()]
            g_ends = [g1, *[pending.pop() for _ in out.losses][::-1]]
            found = torch.autograd.grad(ends, [seen, *others], g_ends, allow_unused=True)
            x1, g2 = x1 - out.y.detach(), g2 + found[0]
            for other, grad in zip(others, found[1:], strict=True):
                if grad is not None:
                    grads[other] = grads[other] + grad if other in grads else grad
        return None, g1, g2, grads.get(hidden), *(grads.get(parameter) for parameter in ctx.parameters)
