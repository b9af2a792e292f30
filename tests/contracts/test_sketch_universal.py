"""One shared block, applied to each token as often as it needs. Universal Transformer, Dehghani et al. 2018, arXiv:1807.03819."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers import MLP, Attention, Block, Decoder, PostNorm
from formers.call import Call, Layer, Out, add_losses
from formers.places import Places
from formers.position import sinusoid
from formers.spec import Site


class SketchUniversal(Layer):
    """`block` up to `steps` times. A token's output stops changing when its halting probabilities sum to 1 - eps.

    Its raw state goes on being transformed and attended to, as in the paper's code, for as long as any token of the
    stream needs another step. ponder: weight of the loss "ponder", the mean over tokens of steps + remainder.
    """

    block: Layer
    steps: int
    ponder: float = 0.01
    eps: float = 0.01

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.steps < 1:
            yield f"a block applied {self.steps} times is no model", "steps=6"

    def build(self, site: Site) -> nn.Module:
        return SketchUniversalLayer(self, site)


class SketchDepths(NamedTuple):
    """What the block remembers at each step taken so far, and where every token stands after the last of them."""

    steps: tuple[Any, ...]
    raw: Tensor
    at: Places


class SketchUniversalLayer(nn.Module):
    def __init__(self, spec: SketchUniversal, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.block = spec.block.build(site.part(0))
        self.halt = nn.Linear(site.dim, 1)

    def forward(self, x: Tensor, call: Call, state: SketchDepths | None = None, choices: Any = None) -> Out:
        pasts, earlier, at, halting = [], None, call.at, Halting(x, call.at, self.spec.eps)
        if state is not None:
            pasts, earlier, at = list(state.steps), state.raw, state.at.join(call.at)
        losses: dict[str, Tensor] = {}
        for t in range(self.spec.steps):
            if t == len(pasts):  # nobody has come this far yet
                if not halting.running.any():
                    break
                past = None
                if earlier is not None:  # those before us never needed this step; their keys are needed now
                    before = self.block(self.placed(earlier, state.at, t), call.with_places(state.at))
                    earlier, past = before.y, before.state
                pasts.append(past)
            x = self.placed(x, call.at, t)
            weight = halting.step(self.halt(x).sigmoid().squeeze(-1))
            out = self.block(x, call, pasts[t])
            x, pasts[t], losses = out.y, out.state, add_losses(losses, out.losses)
            halting.output = halting.output.lerp(x, weight[..., None])
        raw = x if earlier is None else torch.cat([earlier, x], 1)
        losses = add_losses(losses, {"ponder": self.spec.ponder * halting.cost()})
        return Out(halting.output, SketchDepths(tuple(pasts), raw, at), losses, records={"steps": (halting.steps,)})

    def placed(self, x: Tensor, at: Places, step: int) -> Tensor:
        """The token's and the step's sinusoids are added at every step."""
        where = torch.full_like(at.pos, step + 1)
        return x + sum(sinusoid(pos, x.shape[-1], "interleaved", x.dtype) for pos in (at.pos, where))


class Halting:
    """Which tokens still run (B, T), how far each has come, and the output so far."""

    def __init__(self, x: Tensor, at: Places, eps: float) -> None:
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if at.real is None else at.real
        self.real, self.running, self.eps = real, real, eps
        self.total, self.remainder, self.steps = (x.new_zeros(x.shape[:2]) for _ in range(3))
        self.output = torch.zeros_like(x)

    def step(self, p: Tensor) -> Tensor:
        """The weight (B, T) of this step's state in the output, for halting probabilities p."""
        stops = self.running & (self.total + p > 1 - self.eps)
        rest = (1 - self.total) * stops
        weight = p * (self.running & ~stops) + rest
        self.total, self.remainder = self.total + weight, self.remainder + rest
        self.steps = self.steps + self.running
        self.running = self.running & ~stops
        return weight

    def cost(self) -> Tensor:
        return ((self.steps + self.remainder) * self.real).sum() / self.real.sum()


def decoder(steps: int = 6, bias: float = -1.0) -> nn.Module:
    depth = SketchUniversal(Block((Attention(2), MLP(8)), PostNorm()), steps)
    model = Decoder("universal", 11, 8, (depth,)).build(streaming=True)
    nn.init.normal_(model.stack.blocks[0].halt.weight, std=1.0)
    nn.init.constant_(model.stack.blocks[0].halt.bias, bias)
    return model


def test_the_output_is_the_papers_interpolation() -> None:
    halting = Halting(torch.zeros(1, 1, 3), Places.run(0, 1), 0.01)
    for t, p in enumerate((0.3, 0.4, 0.9)):
        halting.output = halting.output.lerp(torch.eye(3)[None, None, t], halting.step(torch.tensor([[p]]))[..., None])
    torch.testing.assert_close(halting.output[0, 0], torch.tensor([0.126, 0.28, 0.3]))
    torch.testing.assert_close(halting.cost(), torch.tensor(3.3))


def test_cached_decoding_equals_one_pass_however_deep_each_token_goes() -> None:
    model, tokens = decoder(steps=12), torch.randint(11, (16, 12))
    deeper_later = model(tokens).records["steps"][0].argmax(1) > 0
    tokens = tokens[deeper_later][:1]
    whole = model(tokens)
    for sizes in ([1] * 12, [5, 4, 3], [11, 1]):
        state, parts = None, []
        for part in tokens.split(sizes, 1):
            out = model(part, state)
            state = out.state
            parts.append(out.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole.logits)


def test_no_more_steps_are_run_than_some_token_needs() -> None:
    model, count = decoder(steps=50, bias=1.0), []
    model.stack.blocks[0].block.register_forward_hook(lambda *_: count.append(1))
    deepest = model(torch.randint(11, (2, 9))).records["steps"][0].max()
    assert len(count) == deepest < 50


def test_ponder_teaches_halting_and_padding_costs_nothing() -> None:
    model, tokens = decoder(bias=0.0), torch.randint(11, (1, 7))
    alone = model(tokens)
    padded = model(torch.cat([torch.randint(11, (1, 4)), tokens], 1), mask=torch.arange(11)[None] >= 4)
    torch.testing.assert_close(padded.logits[:, 4:], alone.logits)
    torch.testing.assert_close(padded.losses["ponder"], alone.losses["ponder"])
    alone.losses["ponder"].backward()
    assert model.stack.blocks[0].halt.weight.grad.any()
