"""A reversible stack as a layer of the depth. RevNet, arXiv:1707.04585; Reformer, arXiv:2001.04451."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from formers.block import Block, collect
from formers.call import Call, Layer, Out
from formers.residual import PreNorm, Residual
from formers.reversible.half import Half
from formers.reversible.rebuild import Merge, Pass, Rebuilt
from formers.spec.core import Site, parts_within


class Reversible(Layer):
    """Blocks on two streams, each sublayer adding to one what it makes of the other, so that the inputs can be rebuilt.

    Gomez et al. 2017, arXiv:1707.04585; Kitaev et al. 2020, arXiv:2001.04451. Both streams begin as x; x1 += f(norm(x2))
    for each sublayer f of each block, after which the streams change places: a block of attention and feed-forward is
    Y1 = X1 + Attention(norm(X2)), Y2 = X2 + FeedForward(norm(Y1)). Training keeps the last two streams, where the random
    generators stood, and the choices of each sublayer, whatever the depth; the backward pass runs every sublayer once
    more. The streams are kept in fp32 or better.

    merge: "concatenate" puts the streams side by side, (B, T, 2M), as in Reformer's language model: nothing but the
    model's last norm and an untied head can read that, and another Reversible that is given both streams. "mean" gives
    (B, T, M), as in its encoder-decoder. streams: "given" says that x (B, T, 2M) is both of them, side by side.
    last_swap: False leaves the streams in their places behind the last sublayer of each block, as those encoder blocks of
    Terraformer, arXiv:2111.12763, do that have one swap.

    States, given or returned, carry no gradient; nor do records. Layers inside cannot ask for logits (`call.read`).
    """

    blocks: tuple[Layer, ...]
    merge: Literal["concatenate", "mean"] = "concatenate"
    streams: Literal["copied", "given"] = "copied"
    last_swap: bool = True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.blocks:
            yield "a reversible stack without blocks does nothing", "blocks=stack(Block((...)), times=2)"
        for block in self.blocks:
            if any(isinstance(part, Reversible) for part in parts_within(block)):
                yield (
                    "a Reversible inside a Reversible would rebuild twice",
                    "put its blocks among those of the outer one",
                )
            elif not isinstance(block, Block):
                yield f"a {type(block).__name__} cannot be inverted: only a Block has halves", "blocks=(Block((...)),)"
            elif isinstance(block.residual, Residual) and type(block.residual) is not PreNorm:
                what = f"a block joined by {type(block.residual).__name__} cannot be inverted"
                yield what, f"residual=PreNorm(norm={block.residual.norm!r}, dropout={block.residual.dropout!r})"

    def in_dim(self, dim: int) -> int:
        return 2 * dim if self.streams == "given" else dim

    def out_dim(self, dim: int) -> int:
        return 2 * dim if self.merge == "concatenate" else dim

    def build(self, site: Site) -> nn.Module:
        return ReversibleLayer(self, site)


class ReversibleLayer(nn.Module):
    """The blocks as they would stand in an ordinary depth, run half by half."""

    def __init__(self, spec: Reversible, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleList(block.build(site.part(i)) for i, block in enumerate(spec.blocks))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        halves = [halves_of(block, last_swap=self.spec.last_swap) for block in self.blocks]
        counts = [len(of_block) for of_block in halves]
        every = [half for of_block in halves for half in of_block]
        given_both = self.spec.streams == "given"
        pasts, chosen = flat(state, counts), flat(choices, counts)
        run = Pass(every, replace(call, read=unread), pasts, chosen, given_both=given_both)
        y = run_through(run, self.spec.merge, x, list(self.parameters()))
        outs = iter(run.handed_out())
        return collect(y, [collect(y, list(islice(outs, count)), call) for count in counts], call)


@torch.compiler.disable
def run_through(run: Pass, merge: str, x: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """The merged streams; whatever a gradient must reach goes in by name."""
    hidden = run.take_hidden()
    x1, x2, *losses = Rebuilt.apply(run, x, hidden, *parameters)
    run.name_losses(losses)
    y: Tensor = Merge.apply(merge, x1, x2)
    return y.to(x.dtype)


def flat(nested: Any, counts: list[int]) -> list[Any]:
    """A state or choices, as `collect` nested them block by block, with one entry for each half."""
    blocks = zip(nested or (None,) * len(counts), counts, strict=True)
    return [item for block, count in blocks for item in block or (None,) * count]


def halves_of(block: Any, *, last_swap: bool) -> list[Half]:
    """The sublayers of a built block, each with the norm before it and the dropout behind it."""
    rule, last = block.residual, len(block.sublayers) - 1
    rate = rule.rate if rule.training else 0.0
    parts = zip(rule.norms, block.sublayers, strict=True)
    return [Half(norm, layer, rate, i < last or last_swap) for i, (norm, layer) in enumerate(parts)]


def unread(hidden: Tensor) -> Tensor:
    """Instead of logits: the head's parameters would get no gradient from what is recomputed."""
    raise ValueError("a layer inside a Reversible asks for logits, which are not to be had there; put it outside")
