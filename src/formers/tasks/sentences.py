"""ETC's pretraining: hidden tokens are filled in, and hidden sentences are told from others. arXiv:2004.08483."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from formers.attention import GlobalLocal
from formers.data.batches import Ordered, Packed, mask_tokens, sentence_segments, side_by_side
from formers.data.chance import generator
from formers.errors import ConfigError, DataError
from formers.model import Encoder
from formers.sides import GLOBAL, SEGMENT
from formers.spec import Spec
from formers.spec.core import parts_within
from formers.tasks.fit import require_fit
from formers.tasks.loss import summed_nats
from formers.tasks.masked import EVALUATION, require_neighbours
from formers.tasks.prepare import Prepared
from formers.tasks.score import Tally
from formers.train.spec import TrainSpec
from formers.train.task import Batch, Loss, Size, Tick, device_of, to_device, untold

# The tokenizer's special ids: "start" is the summary of a sentence, as BERT's [CLS] is, "end" closes each.
SPECIAL = ("end", "pad", "mask", "start")
LONGEST = 128  # tokens of a sentence
HIDDEN = 0.1  # of the sentences of a row, those that are hidden as a whole
SHARE = 0.25  # of the contrastive loss beside that of hidden tokens: 0.2 to 0.8


def has_two_inputs(spec: Spec) -> bool:
    """Whether a model reads a long input through a global one."""
    return any(isinstance(part, GlobalLocal) for part in parts_within(spec))


class MaskedSentences:
    """Two losses on rows of packed sentences, each with a global token in front that is its summary; a `Task`.

    Masked tokens: 15 % of the tokens, as in `Masked`. Contrastive prediction (CPC): all tokens of a tenth of the
    sentences of each row are hidden, at least one where there are two; what the model makes of the global token of such
    a sentence must tell which of the batch's it was, by its product with what the model makes of the global token where
    it reads that sentence alone and in full: softmax of u_i v_j / sqrt(M), the right one among all hidden sentences of
    the batch (InfoNCE, arXiv:1807.03748). The losses weigh 0.8 and 0.2; here the first has weight 1, the second `SHARE`.

    The paper does not say whether the side that reads in full is learned from; it is here, as in InfoNCE: other
    sentences keep the two sides from agreeing on nothing. Differs from the paper: sentences are cut after LONGEST tokens.
    """

    def __init__(self, prepared: Prepared, spec: TrainSpec) -> None:
        tokenizer = prepared.tokenizer
        missing = [role for role in ("end", "mask", "start") if getattr(tokenizer, role) is None]
        if missing:
            raise DataError(
                f"the tokenizer has no id for {', '.join(missing)}; prepare the text with special={SPECIAL}"
            )
        require_neighbours(spec)
        if spec.loss_chunk is not None:
            raise ConfigError(
                "hidden sentences are told from the last hidden states, which are not kept where logits are made in "
                "pieces; use loss_chunk=none"
            )
        self._prepared, self._spec = prepared, spec
        self._end, self._mask, self._start = (getattr(tokenizer, role) for role in ("end", "mask", "start"))
        self._windows = Packed(prepared.train, spec.length - 1, spec.batch, spec.seed)

    @property
    def data(self) -> dict[str, str]:
        return self._prepared.fingerprints

    def require(self, spec: Spec) -> None:
        require_fit(spec, Encoder, self._prepared.tokenizer, self._spec.length)
        if not has_two_inputs(spec):
            raise ConfigError(f"{spec!r} has no global input to sum up sentences; use GlobalLocalAttention, as etc has")

    def batch(self, step: int) -> Batch:
        """inputs, truth, mask, chosen and both marks (B, G + T); of hidden sentences, the place of their global token,
        -1 where a row has fewer, and what they are: hidden (B, K), alone and alone_mask (B, K, S)."""
        rows = self._windows.at(step - 1)
        return self._hide(rows, torch.ones_like(rows, dtype=torch.bool), self._spec.seed, step)

    def size(self, batch: Batch) -> Size:
        return Size(int(batch["mask"].sum() + batch["alone_mask"].sum()), int(batch["chosen"].sum()))

    def loss(self, model: Any, batch: Batch) -> Loss:
        out = _read(model, batch)
        nats = summed_nats(out.logits, batch["truth"][batch["chosen"]], self._spec.label_smoothing)
        scores = told_apart(out.hidden, model, batch)
        right = torch.arange(len(scores), device=scores.device)
        contrast = F.cross_entropy(scores, right, reduction="sum") / max(len(scores), 1)
        return Loss(nats, out.losses | {"cpc": SHARE * contrast}, out.records)

    def evaluate(self, model: nn.Module, limit: int | None = None, tick: Tick = untold) -> dict[str, float]:
        """Of hidden tokens the figures of `Masked`; of hidden sentences cpc, in nats, and retrieval, the share that is
        told from the others of its batch, where any sentence can be hidden."""
        tokens = self._prepared.held_out.tokens if limit is None else self._prepared.held_out.tokens[:limit]
        windows = Ordered(tokens, self._spec.length - 1, self._spec.batch)
        tally, figures, device = Tally(), [], device_of(model)
        for number, (rows, real) in enumerate(windows, 1):
            batch = self._hide(rows.masked_fill(~real, self._mask), real, EVALUATION, number)
            with torch.no_grad():
                loss, found = _tested(model, to_device(batch, device))
            tally.add(loss)
            figures.append(found)
            tick(number / len(windows))
        told, right, hidden, apart, nats = torch.stack(figures).sum(0).tolist()
        if not told:
            raise DataError("the held-out text has no token that can be hidden; hold more text out")
        of_sentences = {"cpc": nats / hidden, "retrieval": apart / hidden} if hidden else {}
        return tally.score(int(told)) | {"accuracy": right / told} | of_sentences

    def _hide(self, tokens: Tensor, real: Tensor, seed: int, step: int) -> Batch:
        tokenizer, chance = self._prepared.tokenizer, generator(seed, step)
        segment = sentence_segments(tokens, self._end, LONGEST).masked_fill(~real, -1)
        whole = _some_sentences(segment, chance)
        hidden = (segment[..., None] == whole[:, None]).any(-1) & real
        seen = tokens.masked_fill(hidden, self._mask)  # no token of a hidden sentence is chosen once more
        inputs, chosen = mask_tokens(seen, self._mask, tokenizer.vocab, tokenizer.special_ids, chance)
        both = side_by_side(inputs, segment, self._start, real)
        ahead = both.ahead
        alone, alone_mask = self._alone(tokens, segment, whole)
        batch = {"inputs": both.tokens, "truth": F.pad(tokens, (ahead, 0)), "chosen": F.pad(chosen, (ahead, 0))}
        return batch | both.marks | {"mask": both.mask, "hidden": whole, "alone": alone, "alone_mask": alone_mask}

    def _alone(self, tokens: Tensor, segment: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Each hidden sentence behind its global token, (B, K, S), and where there is one."""
        start = torch.tensor([self._start])
        sentences = [
            torch.cat([start, row[place == number]]) if number >= 0 else start[:0]
            for row, place, numbers in zip(tokens, segment, whole, strict=True)
            for number in numbers
        ]
        lengths = torch.tensor([len(sentence) for sentence in sentences])
        padded = pad_sequence(sentences, batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        return padded.unflatten(0, whole.shape), real.unflatten(0, whole.shape)


def told_apart(hidden: Tensor, model: Any, batch: Batch) -> Tensor:
    """How well each hidden sentence fits each: (N, N), the right ones on the diagonal. hidden (B, G + T, M): the last
    states of a pass in which they were hidden; the model reads them in full."""
    rows, places = (batch["hidden"] >= 0).nonzero(as_tuple=True)
    guessed = hidden[rows, batch["hidden"][rows, places]]
    if not len(rows):
        return guessed @ guessed.mT
    real, tokens = batch["alone_mask"][rows, places], batch["alone"][rows, places]
    marks = {GLOBAL: torch.zeros_like(tokens), SEGMENT: torch.zeros_like(tokens)}
    marks[GLOBAL][:, 0] = 1
    read = model(tokens, mask=real, marks=marks, logits_at=None, remember=False).hidden[:, 0]
    exact = torch.promote_types(read.dtype, torch.float32)
    return guessed.to(exact) @ read.to(exact).mT * read.shape[-1] ** -0.5


def _some_sentences(segment: Tensor, chance: torch.Generator) -> Tensor:
    """Which sentences of each row are hidden: (B, K) numbers, -1 where a row has fewer."""
    count = segment.amax(1) + 1
    wanted = (count * HIDDEN).round().clamp(min=1).minimum(count - 1).clamp(min=0).long()
    drawn = torch.rand(len(segment), int(count.max()), generator=chance)
    order = drawn.masked_fill(torch.arange(drawn.shape[1]) >= count[:, None], 2.0).argsort(dim=1)
    most = max(1, int(wanted.max()))
    return torch.where(torch.arange(most) < wanted[:, None], order[:, :most], -1)


def _read(model: Any, batch: Batch) -> Any:
    """The output of the pass with hidden tokens and sentences, with logits at the tokens that are to be filled in."""
    marks = {name: batch[name] for name in (GLOBAL, SEGMENT)}
    return model(batch["inputs"], mask=batch["mask"], marks=marks, logits_at=batch["chosen"], remember=False)


def _tested(model: Any, batch: Batch) -> tuple[Loss, Tensor]:
    """The loss; and how many tokens were hidden, and guessed, how many sentences hidden, and told apart, and their nats."""
    out, truth = _read(model, batch), batch["truth"][batch["chosen"]]
    scores = told_apart(out.hidden, model, batch)
    right = torch.arange(len(scores), device=scores.device)
    apart = scores.diagonal() >= scores.amax(1) if len(scores) else right
    nats = F.cross_entropy(scores, right, reduction="sum")
    figures = [len(truth), (out.logits.argmax(-1) == truth).sum(), len(scores), apart.sum(), nats]
    return Loss(summed_nats(out.logits, truth), out.losses, out.records), torch.tensor(figures, dtype=torch.float64)
