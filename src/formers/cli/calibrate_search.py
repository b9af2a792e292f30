"""`formers calibrate --search`: a threshold for each exit, found on held-out text. Elbayad et al. 2020, arXiv:1910.10073."""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from formers.cli.progress import ticking
from formers.data.atomic import write_json
from formers.data.tokenizer import Tokenizer
from formers.decode.prompt import prepare
from formers.encoder_decoder import EncoderDecoder
from formers.exits.calibration import with_threshold
from formers.exits.halting.held_out import Question, scores, searched
from formers.hub import hold

TOGETHER = 32  # texts of a language model that are read side by side


def search_thresholds(
    options: argparse.Namespace,
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    references: Sequence[list[int]],
) -> None:
    """Find the thresholds, hold the model with them, and tell how it does."""
    paired = isinstance(model.spec, EncoderDecoder)
    questions = _of_pairs(model, tokenizer, prompts, references) if paired else _of_texts(model, prompts, references)
    with ticking("searching thresholds"):
        found = searched(model, questions, options.search)
        early = with_threshold(model, found.thresholds)
        asked, full = scores(early, questions), scores(with_threshold(model, None), questions)
    hold(options.out, early, tokenizer, {})
    depth, thresholds = len(found.thresholds) + 1, " ".join(f"{threshold:.3g}" for threshold in found.thresholds)
    told = {"price": options.search, "texts": len(prompts), "thresholds": list(found.thresholds)}
    write_json(options.out / "search.json", told | asked._asdict() | {"full_accuracy": full.accuracy})
    print(
        f"{options.out}: thresholds {thresholds}. Of the tokens searched by, {asked.accuracy:.1%} are right after "
        f"{asked.exit:.2f} of {depth} blocks in the mean, and {full.accuracy:.1%} in full"
    )


def _of_texts(model: Any, prompts: Sequence[list[int]], references: Sequence[list[int]]) -> list[Question]:
    """Every token of texts of one length, from those before it."""
    rows = torch.tensor([prompt + reference for prompt, reference in zip(prompts, references, strict=True)])
    rows = rows.to(next(model.parameters()).device)
    return [Question((part[:, :-1],), part[:, 1:]) for part in rows.split(TOGETHER) if len(part)]


def _of_pairs(
    model: Any, tokenizer: Tokenizer, sources: Sequence[list[int]], targets: Sequence[list[int]]
) -> list[Question]:
    """Every token of a target and its end, from its source."""
    questions = []
    for source, target in zip(sources, targets, strict=True):
        ready = prepare(model, [source], 1, None, tokenizer)
        whole = ready.tokens.new_tensor([[*target, tokenizer.end]])
        questions.append(Question((ready.tokens, torch.cat([ready.written, whole[:, :-1]], 1)), whole))
    return questions
