"""Decision Transformer: acting as the next token, given the return that is wanted. Chen et al. 2021, arXiv:2106.01345."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.block import StackLayer, chain_problems
from formers.call import Call, Layer
from formers.control.decision.embedding import SEEN, TOKENS, ActionHead, StepEmbedding
from formers.init import Init, Normal
from formers.norm import LayerNorm, Norm
from formers.spec.check import check
from formers.spec.codec import to_json
from formers.spec.core import Site, Spec, parts_within
from formers.tokens import Seen, place, seen_after


class DecisionTransformer(Spec):
    """Causal blocks over the tokens R_1, s_1, a_1, R_2, ... of an episode, which tell each action from its state's token.

    name: what to call it in messages. dim: width of the stream. blocks: the depth, with no positions of their own: each
    token brings the number of its step. embedding: how a step becomes three tokens, and what can be seen and done.
    context: steps that it looks back when it acts, and rows of training are long. norm: after the last block.

    Differs from the paper: its Atari runs put a tanh behind the embeddings and add a vector of the place in the row, and
    read images by a convolution; these are not built. Neither returns nor states are predicted, as in its experiments.
    """

    name: str
    dim: int
    blocks: tuple[Layer, ...]
    embedding: StepEmbedding
    context: int = 20
    norm: Norm | None = LayerNorm()
    init: Init = Normal()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.dim < 1:
            yield f"a stream {self.dim} wide carries nothing", "dim=128"
        if not self.blocks:
            yield "a model without blocks only looks up its embedding", "blocks=stack(Block((...)), times=3)"
        if not 1 <= self.context <= max(1, self.embedding.horizon):
            what = f"it acts by the last {self.context} steps of episodes of at most {self.embedding.horizon}"
            yield what, f"context={min(20, max(1, self.embedding.horizon))}"
        yield from chain_problems(self.blocks, self.dim, self.dim)
        if self.blocks and self.out_dim != self.dim:
            what = f"the depth puts out {self.out_dim} numbers for each token, and its head reads {self.dim}"
            yield what, 'merge="mean"'
        for part in parts_within(self.blocks):
            if isinstance(part, Layer) and part.max_length is not None and part.max_length < TOKENS * self.context:
                what = f"{type(part).__name__} reads {part.max_length} tokens, and {self.context} steps are"
                yield f"{what} {TOKENS * self.context}", f"context={max(1, part.max_length // TOKENS)}"

    @property
    def head(self) -> ActionHead:
        """What tells the actions, of the space that the embedding reads them from."""
        return ActionHead(self.embedding.action)

    @property
    def max_length(self) -> int:
        """In tokens: three for each step of the longest episode."""
        return TOKENS * self.embedding.horizon

    @property
    def out_dim(self) -> int:
        """The width of what the depth puts out."""
        return self.blocks[-1].out_dim(self.dim) if self.blocks else self.dim

    @property
    def site(self) -> Site:
        return Site(dim=self.dim)

    def inside(self, site: Site) -> Site:
        return self.site.replace(causal=True, streaming=site.streaming, path=site.path)

    def to_json(self) -> str:
        """This spec as JSON, read back by `formers.spec.from_json`."""
        return to_json(self)

    def build(self, site: Site | None = None, *, streaming: bool = False) -> "DecisionLayer":
        """The model, checked first; raises ConfigError with everything that is wrong."""
        site = site or self.site.replace(streaming=streaming)
        check(self, site, self.name)
        model = DecisionLayer(self, self.inside(site))
        self.init.apply(model, self.dim)
        return model


class Waiting(NamedTuple):
    """The last step of a call whose action was not yet chosen: its number (B, 1), and whether it is real, (B, 1) bool."""

    timestep: Tensor
    real: Tensor


class DecisionState(NamedTuple):
    """How many real tokens each row has seen, what each block remembers, and the step that waits for its action."""

    seen: Seen
    blocks: tuple[Any, ...]
    waiting: Waiting | None


class Decided(NamedTuple):
    """actions (B, T, A): logits of the choices, or numbers within their bounds, of each step by its observation.

    state: continues this call; None with remember=False. losses, records: as in `Output`.
    """

    actions: Tensor
    state: DecisionState | None
    losses: dict[str, Tensor]
    records: dict[str, tuple[Tensor, ...]]


class DecisionLayer(nn.Module):
    def __init__(self, spec: DecisionTransformer, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = spec.embedding.build(site)
        self.stack = StackLayer(spec.blocks, site)
        self.norm = spec.norm.build(site) if spec.norm else None
        self.head = spec.head.build(site)

    def forward(
        self,
        returns: Tensor,
        observations: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        state: DecisionState | None = None,
        *,
        mask: Tensor | None = None,
        seed: int = 0,
        remember: bool = True,
    ) -> Decided:
        """returns (B, T): what is left to be earned from each step on. observations (B, T, W), or (B, T) of choices.

        actions: those that were taken, one for each step; or one fewer, where the last is still to be chosen. A call that
        goes on from there is given that action first, so one more. timesteps (B, T) int64: the numbers of the steps in
        their episodes. state: of an earlier call that this one continues. mask (B, T) bool, False at padding, which may
        stand anywhere; none of a step's tokens is seen then. seed, remember: as in a decoder.

        Raises ValueError for shapes that do not fit each other, and for a step beyond the horizon.
        """
        waiting = None if state is None else state.waiting
        late = 0 if waiting is None else 1
        self._require(returns, observations, actions, timesteps, mask, late)
        seen = 0 if state is None else state.seen
        x, real = self._tokens(returns, observations, actions, timesteps, mask, waiting)
        at = place(x[..., 0], seen, real, None)
        call = Call(at, seed=seed, remember=remember)
        out = self.stack(self.embedding.finish(x), call, None if state is None else state.blocks)
        hidden = out.y[:, late + SEEN :: TOKENS]
        told = self.head(hidden if self.norm is None else self.norm(hidden))
        after = None
        if remember:
            chosen = actions.shape[1] == late + returns.shape[1]
            after = DecisionState(seen_after(seen, at), out.state, None if chosen else _waiting(timesteps, mask))
        return Decided(told, after, out.losses, out.records)

    def _tokens(
        self,
        returns: Tensor,
        observations: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        mask: Tensor | None,
        waiting: Waiting | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The tokens in their order, with their steps, (B, N, M), and which are real, (B, N); None: all."""
        embedding, (rows, length) = self.embedding, returns.shape
        late = 0 if waiting is None else 1
        steps = embedding.steps(timesteps)
        done = embedding.actions(actions)
        before, own = done[:, :late], done[:, late:]
        count = TOKENS * length - (length - own.shape[1])
        own = torch.cat([own, own.new_zeros(rows, length - own.shape[1], own.shape[2])], 1)
        told = torch.stack([embedding.left(returns), embedding.observations(observations), own], 2)
        x = (told + steps[:, :, None]).flatten(1, 2)[:, :count]
        real = None if mask is None else mask.repeat_interleave(TOKENS, 1)[:, :count]
        if waiting is None:
            return x, real
        x = torch.cat([before + embedding.steps(waiting.timestep), x], 1)
        if real is None and bool(waiting.real.all()):
            return x, None
        real = torch.ones_like(x[:, 1:, 0], dtype=torch.bool) if real is None else real
        return x, torch.cat([waiting.real, real], 1)

    def _require(
        self,
        returns: Tensor,
        observations: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        mask: Tensor | None,
        late: int,
    ) -> None:
        if returns.dim() != 2:
            raise ValueError(f"returns must be (batch, steps), got {tuple(returns.shape)}: unsqueeze(0) a single row")
        rows, length = returns.shape
        for name, extra in {"timesteps": timesteps, "mask": mask}.items():
            if extra is not None and extra.shape != returns.shape:
                raise ValueError(f"{name} has shape {tuple(extra.shape)}, returns have {tuple(returns.shape)}")
        spec = self.spec.embedding
        spec.observation.require("observations", observations, (rows, length))
        least = length + late - 1
        spec.action.require("actions", actions, (rows, min(max(actions.shape[1], least), least + 1)))
        if timesteps.numel() and not 0 <= int(timesteps.min()) <= int(timesteps.max()) < spec.horizon:
            raise ValueError(
                f"steps are counted from 0 to {spec.horizon - 1} here, and one is {int(timesteps.max())}: give the model a "
                "longer horizon"
            )


def _waiting(timesteps: Tensor, mask: Tensor | None) -> Waiting:
    last = timesteps[:, -1:]
    return Waiting(last, torch.ones_like(last, dtype=torch.bool) if mask is None else mask[:, -1:])
