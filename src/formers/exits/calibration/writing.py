"""What a model writes when its tokens leave early, beside what it writes when none does: CALM's risks of whole texts."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from formers.data.tokenizer import Tokenizer
from formers.decode import Sampling, generate
from formers.decode.engine import EngineName
from formers.decode.prompt import prepare
from formers.encoder_decoder import EncoderDecoder
from formers.exits.calibration.evidence import Found
from formers.exits.calibration.likeness import unlike
from formers.exits.calibration.threshold import with_threshold

Against = Literal["full", "references"]
TOGETHER = 32  # texts that are read or written side by side
GREEDY = Sampling(temperature=0.0)


class Writings:
    """Texts that a model writes behind prompts, the likeliest token each time, with any threshold.

    prompts: ids of each; those of a language model are of one length. references: what was to be written. The loss of a
    text is how unlike (`unlike`) it is to what the full model writes; with references, by how much more it is unlike to its
    reference than the full model's text is, if at all. Both lie between 0 and 1.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[list[int]],
        max_new: int,
        *,
        references: Sequence[list[int]] | None = None,
        tokenizer: Tokenizer | None = None,
        engine: EngineName = "auto",
    ) -> None:
        self._model, self._prompts, self._references = model, list(prompts), references
        self._how: dict[str, Any] = {"max_new": max_new, "sampling": GREEDY, "engine": engine}
        self._paired = isinstance(model.spec, EncoderDecoder)
        # A language model writes on behind the end of a document, so that all its texts are of one length.
        self._how |= {"tokenizer": tokenizer} if self._paired else {}
        self.full = self._written(with_threshold(model, None), self._prompts)

    def at(self, threshold: float) -> Found:
        """What that threshold does to every text."""
        early = with_threshold(self._model, threshold)
        texts = self._written_early(early)
        losses = [self._loss(number, text) for number, text in enumerate(texts)]
        return Found(losses, self._mean_exit(early, texts), texts)

    def _written_early(self, early: Any) -> list[list[int]]:
        texts, differ = list(self.full), list(range(len(self.full)))
        if not self._paired:
            differ = self._differing(early)
        for number, text in zip(differ, self._written(early, [self._prompts[n] for n in differ]), strict=True):
            texts[number] = text
        return texts

    def _loss(self, number: int, text: list[int]) -> float:
        if self._references is None:
            return unlike(text, self.full[number])
        wanted = self._references[number]
        return max(0.0, unlike(text, wanted) - unlike(self.full[number], wanted))

    def _written(self, model: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
        texts: list[list[int]] = []
        for start in range(0, len(prompts), TOGETHER):
            texts += [row.tokens for row in generate(model, prompts[start : start + TOGETHER], **self._how)]
        return texts

    def _differing(self, model: Any) -> list[int]:
        """The texts that the model would write otherwise: somewhere in the full model's, it would have gone on by another
        token. A single pass tells, where writing takes one for each token."""
        found: list[int] = []
        for start, rows, behind in self._passes(self.full):
            out = _seen(model, rows)
            same = out.logits[:, behind - 1 : -1].argmax(-1) == rows[:, behind:]
            found += [start + int(row) for row in (~same.all(1)).nonzero()[:, 0]]
        return found

    def _mean_exit(self, model: Any, texts: list[list[int]]) -> float:
        """Blocks that a token ran through, in the mean over those that were written."""
        if self._paired:
            return self._mean_target_exit(model, texts)
        leaves = [
            _seen(model, rows).records["leaves"][-1][:, behind - 1 : -1].flatten()
            for _, rows, behind in self._passes(texts)
        ]
        return float(torch.cat(leaves).double().mean())

    def _mean_target_exit(self, model: Any, texts: list[list[int]]) -> float:
        leaves: list[Tensor] = []
        for source, text in zip(self._prompts, texts, strict=True):
            ready = prepare(model, [source], 1, None, self._how["tokenizer"])
            read = torch.cat([ready.written, ready.tokens.new_tensor([text])], 1)  # its last token tells where it ends
            with torch.inference_mode():
                out = model(ready.tokens, read, logits_at=slice(-1, None), remember=False)
            leaves.append(out.records["target.leaves"][-1].flatten())
        return float(torch.cat(leaves).double().mean())

    def _passes(self, texts: list[list[int]]) -> list[tuple[int, Tensor, int]]:
        """Prompts with the texts behind them, some at a time: the number of the first, the ids (B, T), and where texts begin."""
        whole = [prompt + text for prompt, text in zip(self._prompts, texts, strict=True)]
        starts = range(0, len(whole), TOGETHER)
        return [(n, torch.tensor(whole[n : n + TOGETHER]), len(self._prompts[0])) for n in starts]


def _seen(model: Any, rows: Tensor) -> Any:
    weight = next(model.parameters())
    with torch.inference_mode():
        return model(rows.to(weight.device), remember=False)
