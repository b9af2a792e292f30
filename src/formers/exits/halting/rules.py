"""Rules that learn when to halt from an oracle. Elbayad et al. 2020 (Depth-Adaptive Transformer), arXiv:1910.10073."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.exits.halting.distributions import cross_entropy, geometric
from formers.exits.halting.oracles import CorrectnessOracle, ExitOracle, Judged
from formers.exits.rule import Exit, ExitRule, ExitRuleLayer, Read, Told
from formers.products import Matrix
from formers.spec.core import Site


class Halting(ExitRule):
    """A distribution q over the exits, which learns what the oracle says: the loss "halting" is weight * CE(q*, q), a
    mean over tokens, or over rows where these leave as a whole.

    In training all tokens run to the end. oracle: knows the targets. weight: the paper's alpha, beside the losses of the
    exits themselves; its gradient reaches the blocks too.
    """

    compares = True

    oracle: ExitOracle = CorrectnessOracle(price=0.02)
    weight: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.weight < 0:
            yield f"with a weight of {self.weight} halting would unlearn what the oracle says", "weight=0.1"


class SequenceHalting(Halting):
    """All tokens of a row leave after the same block, by the mean of the encoder's output: q(n|x) = softmax(W s + b)."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if not site.encoder:
            yield (
                "the exit of a sequence is told by an encoder's output, and there is none",
                "rule=MultinomialHalting()",
            )
        if self.oracle.spread:
            what = f"merit is summed over whole rows, and a spread of {self.oracle.spread} has nothing to smooth"
            yield what, "spread=0.0"

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return SequenceHaltingLayer(self, site, depth)


class MultinomialHalting(Halting):
    """Each token's exit is settled by what the first block puts out: q(n) = softmax(W h + b), of which the likeliest."""

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return MultinomialHaltingLayer(self, site, depth)


class GeometricHalting(Halting):
    """A token leaves after the first block n at which chi_n = sigmoid(w_n h + b_n) reaches a threshold.

    q(n) = chi_n (1 - chi_1) ... (1 - chi_{n-1}), and the last exit has what is left. threshold: one for all exits but the
    last, or one for each, as a search finds them (`formers calibrate --search`); None: no token leaves.
    """

    threshold: float | tuple[float, ...] | None = 0.5

    def misfits(self, depth: int) -> Iterator[tuple[str, str]]:
        if isinstance(self.threshold, tuple) and len(self.threshold) != depth - 1:
            what = (
                f"{depth} blocks have {depth - 1} exits before the end, and {len(self.threshold)} thresholds were given"
            )
            yield what, "threshold=0.5"

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return GeometricHaltingLayer(self, site, depth)


class Halts(NamedTuple):
    """What is to be learned from one pass. log_q: (B, T, N), or (B, N) where rows leave as a whole. pos: (1 or B, T), where
    the tokens stand. rule: whose distribution it is."""

    log_q: Tensor
    pos: Tensor
    rule: Halting

    def loss(self, judged: Judged) -> Tensor:
        """weight * CE(q*, q), a scalar: a mean over the tokens with a target, or over the rows that have any."""
        oracle, real = self.rule.oracle, judged.real
        if self.log_q.dim() == 2:
            nats = cross_entropy(self.log_q, oracle.of_rows(judged), real.any(1))
        else:
            nats = cross_entropy(self.log_q, oracle.of_tokens(judged), real)
        return self.rule.weight * nats


class HaltingLayer(ExitRuleLayer):
    """records["halting"]: log q, (B, T, N), or (B, N) where rows leave as a whole."""

    def __init__(self, spec: Halting) -> None:
        super().__init__()
        self.spec = spec

    def log_q(self, exits: tuple[Tensor, ...], kept: Any) -> Tensor:
        """log q, of the hidden states (B, T, M) after each block."""
        raise NotImplementedError

    def tell(self, exits: tuple[Tensor, ...], reads: tuple[Read, ...], kept: Any, call: Call) -> Told:
        return Told(records={"halting": (self.log_q(exits, kept),)})

    def halts(self, records: Mapping[str, tuple[Tensor, ...]], call: Call) -> Halts:
        return Halts(records["halting"][-1], call.at.pos, self.spec)


class SequenceHaltingLayer(HaltingLayer):
    def __init__(self, spec: SequenceHalting, site: Site, depth: int) -> None:
        super().__init__(spec)
        self.scores = Matrix(site.dim, depth)

    def begin(self, x: Tensor, call: Call, past: Any = None) -> Tensor:
        """logits (B, N); in a stream they are those of its first call, which alone has the encoder's output."""
        if past is not None:
            return cast(Tensor, past)
        if call.encoded is None:
            raise ValueError("the exit of a sequence is told by an encoder's output, and this call has none")
        hidden, real = call.encoded.hidden, call.encoded.places.real
        if real is None:
            mean = hidden.mean(1)
        else:
            counted = torch.where(real[..., None], hidden, 0).sum(1)
            mean = counted / real.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.scores(mean)
        return logits

    def remembers(self, kept: Tensor) -> Tensor:
        return kept

    def leaves(self, here: Exit, kept: Tensor, call: Call) -> tuple[Tensor | None, Tensor]:
        if self.training:
            return None, kept
        return (kept.argmax(-1) <= here.number)[:, None].expand_as(here.stays), kept

    def log_q(self, exits: tuple[Tensor, ...], kept: Any) -> Tensor:
        return cast(Tensor, kept).log_softmax(-1)


class MultinomialHaltingLayer(HaltingLayer):
    def __init__(self, spec: MultinomialHalting, site: Site, depth: int) -> None:
        super().__init__(spec)
        self.scores = Matrix(site.dim, depth)

    def leaves(self, here: Exit, kept: Tensor | None, call: Call) -> tuple[Tensor | None, Tensor | None]:
        """kept: (B, T), after which block each token leaves, from 0: settled behind the first."""
        if self.training:
            return None, None
        if kept is None:
            kept = self.scores(here.x).argmax(-1)
        return kept <= here.number, kept

    def log_q(self, exits: tuple[Tensor, ...], kept: Any) -> Tensor:
        logits: Tensor = self.scores(exits[0])
        return logits.log_softmax(-1)


class GeometricHaltingLayer(HaltingLayer):
    def __init__(self, spec: GeometricHalting, site: Site, depth: int) -> None:
        super().__init__(spec)
        self.spec: GeometricHalting = spec
        self.scores = nn.ModuleList(Matrix(site.dim, 1) for _ in range(depth - 1))

    def leaves(self, here: Exit, kept: Any, call: Call) -> tuple[Tensor | None, Any]:
        threshold = self.threshold(here.number)
        if self.training or threshold is None:
            return None, None
        return self.chi(here.number, here.x) >= threshold, None

    def threshold(self, number: int) -> float | None:
        """What chi must reach for a token to leave after block `number`, from 0; None: none leaves."""
        given = self.spec.threshold
        return given[number] if isinstance(given, tuple) else given

    def chi(self, number: int, hidden: Tensor) -> Tensor:
        """(...): the chance that a token leaves here, of its state (..., M) after block `number`, from 0."""
        score: Tensor = self.scores[number](hidden)
        return score.sigmoid().squeeze(-1)

    def log_q(self, exits: tuple[Tensor, ...], kept: Any) -> Tensor:
        pairs = zip(self.scores, exits[:-1], strict=True)
        return geometric(torch.cat([score(hidden) for score, hidden in pairs], -1))
