"""CALM's rules: a token leaves at the first exit that is sure enough. Schuster et al. 2022, arXiv:2207.07061."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.call import Call
from formers.exits.rule import Exit, ExitRule, ExitRuleLayer, Read, Told
from formers.places import Places
from formers.products import Matrix
from formers.spec.core import Site, Spec


class Decay(Spec):
    """A threshold that falls along the text: clip(0.9 threshold + 0.1 exp(-rate t / length), 0, 1), section 3.4 of CALM.

    t is the position of a token in its row, so that it does not matter where calls end: of a decoder beside an encoder
    the step of decoding, of a language model counted from the beginning of the prompt. The released code multiplies the
    second term by the threshold too; this is the paper's form.
    """

    rate: float = 4.0
    length: int = 1024

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.rate < 0:
            yield f"a threshold that rises along the text, by a rate of {self.rate}, is none of the paper's", "rate=4.0"
        if self.length < 1:
            yield f"a text of {self.length} tokens is none", "length=1024"

    def at(self, threshold: float, at: Places, dtype: torch.dtype) -> Tensor:
        """(1 or B, T): the threshold at each place."""
        falling = torch.exp(at.pos.to(dtype) * (-self.rate / self.length))
        return (0.9 * threshold + 0.1 * falling).clamp(0, 1)


class Confidence(ExitRule):
    """A token leaves at the first exit whose confidence is at least the threshold. While training, none leaves.

    threshold: None: no token leaves, as before a calibration (`formers calibrate`). decay: None: the same everywhere.
    """

    threshold: float | None = None
    decay: Decay | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            yield f"confidence lies between 0 and 1, and the threshold at {self.threshold}", "threshold=0.9"


class ConfidenceLayer(ExitRuleLayer):
    def __init__(self, spec: Confidence) -> None:
        super().__init__()
        self.spec = spec

    @torch.no_grad()
    def leaves(self, here: Exit, kept: Any, call: Call) -> tuple[Tensor | None, Any]:
        if self.training or self.spec.threshold is None:
            return None, kept
        sure = self.confidence(here)
        if sure is None:
            return None, kept
        return sure >= self.threshold(call.at, sure.dtype), kept

    def threshold(self, at: Places, dtype: torch.dtype) -> Tensor | float:
        """What confidence must reach: one number, or (1 or B, T)."""
        assert self.spec.threshold is not None
        if self.spec.decay is None:
            return self.spec.threshold
        return self.spec.decay.at(self.spec.threshold, at, dtype)

    def confidence(self, here: Exit) -> Tensor | None:
        """(B, T), between 0 and 1; None where it is not known. Any number where no token stays."""
        raise NotImplementedError


class SoftmaxResponse(Confidence):
    """How much likelier the best token is than the second: a difference of probabilities, not of logits."""

    @property
    def reads(self) -> bool:
        return self.threshold is not None

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return SoftmaxResponseLayer(self)


class SoftmaxResponseLayer(ConfidenceLayer):
    def confidence(self, here: Exit) -> Tensor | None:
        if here.stays.all():
            return response(here.read(here.x))
        sure = here.x.new_zeros(here.stays.shape)
        sure[here.stays] = response(here.read(here.x[here.stays])).to(sure.dtype)
        return sure


def response(logits: Tensor) -> Tensor:
    """(...): the probability of the best token of logits (..., V) less that of the second."""
    first, second = logits.softmax(-1).topk(2).values.unbind(-1)
    return first - second


class Saturation(Confidence):
    """How little the last block changed the hidden state: their cosine. Not known after the first block, whose input
    is the embedding, so nobody leaves there."""

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return SaturationLayer(self)


class SaturationLayer(ConfidenceLayer):
    def confidence(self, here: Exit) -> Tensor | None:
        return None if here.number == 0 else F.cosine_similarity(here.x, here.before, dim=-1)


class LearnedConfidence(Confidence):
    """A classifier of the hidden state, one for all exits: sigmoid(w h + b).

    It learns, of each exit but the last, whether the best token there is the best token at the last; the two answers
    count alike at each exit, however rare one of them is. The states that it learns from are detached: the model learns
    as if it were not there, and it learns as from a frozen model.
    """

    compares = True

    def build(self, site: Site, depth: int) -> ExitRuleLayer:
        return LearnedConfidenceLayer(self, site)


class LearnedConfidenceLayer(ConfidenceLayer):
    def __init__(self, spec: LearnedConfidence, site: Site) -> None:
        super().__init__(spec)
        self.score = Matrix(site.dim, 1)

    def confidence(self, here: Exit) -> Tensor | None:
        return self.score(here.x)[..., 0].sigmoid()

    def tell(self, exits: tuple[Tensor, ...], reads: tuple[Read, ...], kept: Any, call: Call) -> Told:
        """losses["confidence"]: mean over the exits before the last."""
        real = torch.ones(exits[0].shape[:2], dtype=torch.bool, device=exits[0].device)
        real = real if call.at.real is None else call.at.real
        with torch.no_grad():
            best = [read(x[real]).argmax(-1) for x, read in zip(exits, reads, strict=True)]
        losses = [
            balanced_loss(self.score(x[real].detach())[..., 0], at_exit == best[-1])
            for x, at_exit in zip(exits[:-1], best, strict=False)
        ]
        return Told({"confidence": torch.stack(losses).mean()})


def balanced_loss(scores: Tensor, truth: Tensor) -> Tensor:
    """The cross-entropy of logits (N,) against truth (N,) bool, a scalar, true and false ones with the same weight in all."""
    each = F.binary_cross_entropy_with_logits(scores, truth.to(scores.dtype), reduction="none")
    sides = [each[truth], each[~truth]]
    return torch.stack([side.mean() for side in sides if len(side)]).mean() if len(each) else each.sum()
