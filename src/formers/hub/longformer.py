"""Longformer (Beltagy et al. 2020, arXiv:2004.05150) as it is published: RoBERTa with windows and global projections."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Window
from formers.attention.longformer import LongformerAttention
from formers.errors import CheckpointError
from formers.hub import roberta
from formers.hub.config import Fixed, Key, Kind, find, words
from formers.hub.format import Format, Parts
from formers.hub.ours import BLOCK
from formers.hub.table import Row
from formers.model import Encoder

WINDOW = "attention_window"
LAYER, OURS = "longformer.encoder.layer.{n}.attention.self", f"{BLOCK}.sublayers.0"


def even(value: Any) -> bool:
    """Is it a window that has two equal sides?"""
    return type(value) is int and value > 0 and value % 2 == 0


def windows_of(spec: Any) -> list[int]:
    """The width of each layer's window as it is published: of both sides, the token itself not counted."""
    return [2 * (find(spec, f"blocks[{i}].sublayers[0].pattern.size") - 1) for i in range(len(spec.blocks))]


WINDOWS = Kind(
    "an even number from 2 on, or a list of such",
    lambda value: even(value) or (isinstance(value, list) and all(map(even, value))),
    theirs=windows_of,
)
KEYS = (*roberta.KEYS, Key(WINDOW, "", WINDOWS, 512))

# How the paper's own code works scores out, and how a model is exported.
NOTES = words("attention_mode onnx_export")
RULES = (
    *roberta.RULES,
    Fixed("ignore_attention_mask", False, "padding is never seen"),
)


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of a Longformer."""
    spec = roberta.build(said, parts)
    widths, depth = said[WINDOW], len(spec.blocks)
    widths = [widths] * depth if isinstance(widths, int) else widths
    if len(widths) != depth:
        raise CheckpointError(f"{WINDOW} tells {len(widths)} windows, and num_hidden_layers is {depth}")
    attention, feed_forward = spec.blocks[0].sublayers  # type: ignore[attr-defined]
    blocks = []
    for block, width in zip(spec.blocks, widths, strict=True):
        local = LongformerAttention(attention.heads, Window(width // 2 + 1), dropout=attention.dropout)
        blocks.append(block.replace(sublayers=(local, feed_forward)))
    longformer: Encoder = spec.replace(name="longformer", blocks=tuple(blocks))
    return longformer


GLOBAL = tuple(
    Row(f"{LAYER}.{theirs}_global.*", f"{OURS}.{ours}_global.*")
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"))
)

LONGFORMER = Format(
    "longformer",
    Encoder,
    KEYS,
    build,
    lambda spec: roberta.weights("longformer.", *GLOBAL),
    architectures=roberta.architectures("Longformer"),
    parts=roberta.PARTS,
    parts_of=roberta.parts_of,
    rules=RULES,
    notes=NOTES,
    unsaid={"pad_token_id": roberta.PADDING},
    ahead=roberta.ahead,
)
