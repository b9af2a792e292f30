"""The Feedback Transformer against a package: a training step, and a token when much or little has come before."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.feedback import Feedback
from formers.feedforward import MLP
from formers.head import Untied
from formers.model import Decoder
from formers.report.rows import Row, ratio_at_least, value_at_most
from formers.residual import PreNorm

PACKAGE = Rival(
    "feedback-transformer-pytorch with seq_len=1, its feed-forward replaced by one like ours",
    package="feedback-transformer-pytorch",
    extra="rivals-memory",
)
EARLY, LATE = 100, 10_000
TOKENS = 20  # in one turn of decoding


@dataclass(frozen=True)
class Shape:
    """Of both models: rows of so many tokens in a training step, and memories of the last `reach` tokens."""

    rows: int = 8
    length: int = 128
    vocab: int = 258
    dim: int = 256
    depth: int = 4
    heads: int = 4
    hidden: int = 1024
    reach: int = 256

    def ours(self) -> nn.Module:
        torch.manual_seed(0)
        layers = Feedback(self.depth, self.heads, MLP(self.hidden, "relu"), self.reach, None, PreNorm())
        return Decoder("feedback", self.vocab, self.dim, (layers,), head=Untied(bias=True)).build()

    def package(self) -> Any:
        """The package's default is to go through two tokens at once, which do not feed back to each other."""
        from feedback_transformer_pytorch import FeedbackTransformer

        torch.manual_seed(0)
        model = FeedbackTransformer(
            num_tokens=self.vocab,
            dim=self.dim,
            depth=self.depth,
            mem_len=self.reach,
            seq_len=1,
            heads=self.heads,
            dim_head=self.dim // self.heads,
        )
        for _, feed_forward in model.layers:
            up, down = nn.Linear(self.dim, self.hidden), nn.Linear(self.hidden, self.dim)
            feed_forward.fn.fn.net = nn.Sequential(up, nn.ReLU(), down)
        return model

    def tokens(self, rows: int, length: int) -> Tensor:
        return torch.randint(self.vocab, (rows, length), generator=torch.Generator().manual_seed(0))


FULL, TINY = Shape(), Shape(rows=2, length=6, dim=16, depth=2, heads=2, hidden=16, reach=4)


@BENCHES.case(
    "memory",
    "Feedback Transformer (dim 256, depth 4, 4 heads, 256 memories): training step of 8 rows of 128 tokens",
    unit="ms",
    better="lower",
    rival=PACKAGE,
    goal=ratio_at_least(1.5),
)
def training(trial: Trial) -> Iterator[Row]:
    """Forward and backward, token by token in both."""
    shape = TINY if trial.quick else FULL
    tokens = shape.tokens(shape.rows, shape.length)

    def ours() -> Callable[[], None]:
        model = shape.ours().train()
        return step_of(model, lambda: model(tokens, remember=False).logits)

    def package() -> Callable[[], None]:
        model = shape.package().train()
        return step_of(model, lambda: model(tokens))

    duel = trial.duel(ours(), package, warmup=1, rounds=5)
    yield trial.row("training step", *duel.milliseconds())


def step_of(model: nn.Module, logits: Callable[[], Tensor]) -> Callable[[], None]:
    """There and back, from logits."""

    def turn() -> None:
        model.zero_grad()
        logits().square().mean().backward()

    return turn


@BENCHES.case(
    "memory",
    "Feedback Transformer (dim 256, depth 4, 4 heads, 256 memories): decoding a token after 100 and after 10,000",
    unit="ms",
    better="lower",
    rival=PACKAGE,
)
def decoding(trial: Trial) -> Iterator[Row]:
    """One stream, with PyTorch; the tokens before are really read."""
    shape, late = (TINY, 20) if trial.quick else (FULL, LATE)
    tokens, model = shape.tokens(1, late), shape.ours().eval()
    found = {}
    for count in (min(EARLY, late // 2), late):
        duel = trial.duel(writer(model, tokens[:, :count]), lambda: package_writer(shape, tokens[:, :count]))  # noqa: B023
        found[count], theirs = duel.milliseconds(TOKENS)
        yield trial.row(f"a token after {count:,}", found[count], theirs)
    early, much = found.values()
    name = f"a token after {late:,}: times what one after {min(found):,} takes"
    yield trial.row(name, much / early, unit="times", rival=None, goal=value_at_most(1.5), note="256 memories to 100")


@torch.inference_mode()
def writer(model: Any, tokens: Tensor) -> Callable[[], None]:
    """Tokens one by one behind those (1, T), which are read before."""
    state = model(tokens, logits_at=None).state

    @torch.inference_mode()
    def turn() -> None:
        kept = state
        for _ in range(TOKENS):
            kept = model.step(tokens[:, :1], kept).state

    return turn


@torch.inference_mode()
def package_writer(shape: Shape, tokens: Tensor) -> Callable[[], None]:
    """The same of the package."""
    model = shape.package().eval()
    _, memory = model(tokens, return_memory=True)

    @torch.inference_mode()
    def turn() -> None:
        kept = memory
        for _ in range(TOKENS):
            _, kept = model(tokens[:, :1], memory=kept, return_memory=True)

    return turn
