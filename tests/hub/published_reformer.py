"""Tiny Reformers of transformers, and what their hashing layers decided, handed to ours.

Theirs runs in double precision: in single it is off by up to a part in a hundred where a token meets only itself in
several rounds (test_reformer.py has a test of that). Ours runs in single precision, as published.
"""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from published import VOCAB, awake, saved
from published import transformers as tf
from torch import Tensor, nn

from formers.attention.lsh import LSHRule

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "attn_layers": ["local", "lsh"], "hidden_size": 36, "num_attention_heads": 3,
    "attention_head_size": 8, "feed_forward_size": 40, "axial_pos_shape": [6, 8], "axial_pos_embds_dim": [16, 20],
    "lsh_attn_chunk_length": 4, "local_attn_chunk_length": 4, "num_buckets": 4, "num_hashes": 2, "hash_seed": 3,
    "is_decoder": True, "max_position_embeddings": 48, "hidden_dropout_prob": 0.0, "eos_token_id": 2,
    "local_attention_probs_dropout_prob": 0.0,
}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "local and hashing": {},
    "local alone": {"attn_layers": ["local", "local"], "local_attn_chunk_length": 6},
    "one round": {"attn_layers": ["lsh", "lsh"], "num_hashes": 1},
    "two rounds": {"attn_layers": ["lsh", "lsh"]},
    "four rounds, far": {"attn_layers": ["lsh", "lsh", "lsh"], "num_hashes": 4, "lsh_num_chunks_before": 2},
    "no neighbours": {"attn_layers": ["lsh", "lsh"], "lsh_num_chunks_before": 0},
    "buckets in two factors": {"attn_layers": ["lsh", "local", "lsh"], "num_buckets": [2, 4]},
    "small local chunks": {"local_attn_chunk_length": 2, "hidden_act": "gelu", "attention_head_size": 12},
    "learned positions": {"axial_pos_embds": False, "layer_norm_eps": 1e-3},
}


def reformer(folder: Path, kind: str = "ReformerModelWithLMHead", **changes: Any) -> tuple[Any, Path]:
    """Their model, in double precision, and the folder that it was saved to in single."""
    model = awake(getattr(tf, kind)(tf.ReformerConfig(**{**SHAPE, **changes})))
    return model, saved(model, folder)


class Buckets:
    """What the hashing layers of theirs decide, handed to those of ours."""

    def __init__(self, theirs: nn.Module) -> None:
        self.noted: list[Tensor | None] = []
        for module in theirs.modules():
            if hasattr(module, "query_key"):
                module.register_forward_hook(lambda layer, given, out: self.noted.append(out.buckets))

    def hand_to(self, ours: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of their last pass. Where they attend plainly there are none, and ours must not ask."""
        rules = [module for module in ours.modules() if isinstance(module, LSHRule)]
        for rule, buckets in zip(rules, self.noted[-len(rules) :], strict=True):
            monkeypatch.setattr(rule, "hash", functools.partial(noted, buckets))


def noted(buckets: Tensor | None, x: Tensor, *_: Any) -> Tensor:
    """Buckets (B, H, R, T) of x (B, H, T, D), without what theirs filled the sequence up with."""
    return torch.zeros(*x.shape[:2], 1, x.shape[2]).int() if buckets is None else buckets[..., : x.shape[2]].int()


@torch.no_grad()
def both(
    theirs: Any, ours: nn.Module, tokens: Tensor, mask: Tensor | None, patch: pytest.MonkeyPatch, **given: Any
) -> tuple[Tensor, Tensor]:
    """Logits of both; theirs lack the head's bias."""
    buckets = Buckets(theirs)
    their_mask = None if mask is None else mask.long()
    expected = theirs.double()(tokens, attention_mask=their_mask, **given).logits + theirs.lm_head.bias
    buckets.hand_to(ours, patch)
    logits = ours(tokens, mask=mask).logits
    assert expected.std() > 0.5  # large enough that 1e-4 says something
    return expected.float(), logits
