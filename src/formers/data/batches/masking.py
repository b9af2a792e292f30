"""BERT's corruption of its input."""

from collections.abc import Iterable

import torch
from torch import Tensor

from formers.errors import DataError


def mask_tokens(
    tokens: Tensor,
    mask_id: int,
    vocab: int,
    special_ids: Iterable[int],
    generator: torch.Generator,
    rate: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict and hide them, as BERT does (Devlin et al. 2018, arXiv:1810.04805, section 3.1).

    Of every row's ordinary tokens the share `rate` is chosen, rounded, and at least one. Of the chosen ones 80 %
    become `mask_id`, 10 % an ordinary token at random, and 10 % stay.

    tokens (B, T), int64; special_ids (padding among them) are never chosen and never drawn. Gives the inputs (B, T) and
    a bool tensor (B, T), True where the original token is to be predicted. All chance comes from `generator`, which may
    lie on another device than the tokens: `formers.data.chance.generator(seed, step)` makes it a function of the step.
    Differs from the paper: the random token is never a special one.
    """
    if not 0 < rate <= 1:
        raise DataError(f"rate={rate} is no share of the tokens; use a number between 0 and 1, such as 0.15")
    special = torch.tensor(sorted({mask_id, *special_ids}), device=tokens.device)
    ordinary = torch.arange(vocab, device=tokens.device)
    ordinary = ordinary[~torch.isin(ordinary, special)]
    if not len(ordinary):
        raise DataError(f"all {vocab} ids of the vocabulary are special: there is no token to predict")

    def chance() -> Tensor:
        return torch.rand(tokens.shape, generator=generator, device=generator.device).to(tokens.device)

    may = ~torch.isin(tokens, special)
    available = may.sum(dim=1, keepdim=True)
    wanted = (available * rate).round().clamp(min=1).minimum(available)
    rank = chance().masked_fill(~may, 2.0).argsort(dim=1).argsort(dim=1)
    chosen = rank < wanted

    fate = chance()
    drawn = ordinary[(chance() * len(ordinary)).long().clamp(max=len(ordinary) - 1)]
    inputs = torch.where(chosen & (fate < 0.8), torch.full_like(tokens, mask_id), tokens)
    inputs = torch.where(chosen & (fate >= 0.9), drawn, inputs)
    return inputs, chosen
