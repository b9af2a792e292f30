"""One GPT-2, ours and transformers', of the same weights: for the benchmarks of training and of decoding."""

from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from formers import family, hub
from formers.bench.registry import Rival
from formers.errors import FormersError
from formers.model import parameter_count

HUGGING_FACE = Rival("transformers' GPT2LMHeadModel with attn_implementation='sdpa'", package="transformers")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Shape:
    """A GPT-2 of this size, without dropout."""

    vocab: int
    dim: int = 256
    depth: int = 6
    heads: int = 8
    length: int = 512


SHAPES = (Shape(vocab=256), Shape(vocab=50_257))
TINY = (Shape(vocab=40, dim=16, depth=1, heads=2, length=48),)


def twins(shape: Shape) -> tuple[nn.Module, Any]:
    """Ours and the rival, of the same random weights; None for a rival that is not installed.

    Raises FormersError if they differ in their number of parameters or in their logits: then a comparison of their
    speeds would be of two different things.
    """
    if not HUGGING_FACE.installed:
        sizes = {"vocab": shape.vocab, "dim": shape.dim, "depth": shape.depth, "heads": shape.heads}
        return family.make("gpt2", **sizes, length=shape.length, dropout=0.0).build().eval(), None
    rival = _hugging_face(shape).eval()
    with TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        ours = hub.load(folder)
    require_equal(ours, rival, shape)
    return ours, rival


def require_equal(ours: nn.Module, rival: nn.Module, shape: Shape) -> None:
    """Raise FormersError unless both have as many parameters and give the same logits."""
    counts = parameter_count(ours), parameter_count(rival)
    if counts[0] != counts[1]:
        raise FormersError(f"ours has {counts[0]:,} parameters and its rival {counts[1]:,}: they are not one model")
    tokens = torch.randint(shape.vocab, (1, min(16, shape.length)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = float((ours(tokens).logits - rival(tokens).logits).abs().max())
    if not apart <= TOLERANCE:
        raise FormersError(f"ours and its rival have logits {apart:.2g} apart: they are not one model")


def _hugging_face(shape: Shape) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    config = GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.length,
        n_embd=shape.dim,
        n_layer=shape.depth,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # what it takes anyhow, after a warning
    return model
