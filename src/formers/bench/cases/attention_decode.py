"""Decoding under a window: a token costs the same after 100,000 tokens as after 1,000."""

from collections.abc import Iterator
from typing import Any

from formers.attention import Attention, Causal, Window
from formers.bench.far_on import far_on
from formers.bench.patterned import WINDOW
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.family.longformer import longformer_lm
from formers.feedforward import MLP
from formers.model import Decoder
from formers.position import Rotary
from formers.report.rows import Row

SIZES = {"vocab": 258, "dim": 256, "depth": 4, "heads": 8}


def members() -> dict[str, Any]:
    """Decoders all of whose layers have a window."""
    attention = Attention(8, pattern=Causal() & Window(WINDOW), position=Rotary())
    blocks = stack(Block((attention, MLP(1024))), times=4)
    return {
        f"window of {WINDOW}": Decoder("windowed", 258, 256, blocks),
        "longformer_lm, windows of 64 to 256, two dilated heads above": longformer_lm(
            window=(64, WINDOW), hidden=1024, dropout=0.0, **SIZES
        ),
    }


@BENCHES.case(
    "attention",
    "decoding after 1,000 and after 100,000 tokens (dim 256, 4 layers)",
    unit="us",
    better="lower",
)
def decode_far(trial: Trial) -> Iterator[Row]:
    """Both streams in turns, in the native engine and in PyTorch."""
    near, far = (100, 1000) if trial.quick else (1_000, 100_000)
    for name, spec in members().items():
        yield from far_on(trial, name, spec, near, far)
