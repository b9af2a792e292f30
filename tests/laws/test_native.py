"""The native engine says what PyTorch says, or names the part that it has no rule for."""

import re

import numpy as np
import pytest
import torch
from subjects import DECODERS, ENCODERS, SPECS, Stream, build, tokens
from torch import nn

from formers import ACT
from formers.errors import NoRuleError
from formers.native.engine.encoded import give_encoded
from formers.native.engine.library import missing
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine, Session
from formers.spec.core import parts_within

# What the engine refuses, and the part that it names.
REFUSED = {
    "reformer": "LSHRule", "routing_transformer": "StrictRule", "sinkhorn_transformer": "CausalSinkhornLayer",
    "decoder with shaw": "ShawLayer", "decoder with transformer-xl": "TransformerXLLayer",
    "decoder with distance-aware": "DistanceAwareLayer", "decoder with strict hashing": "LSHRule",
    "decoder with half routed": "StrictRule", "decoder with top blocks": "TopBlocksRule",
    "decoder with top blocks shaw": "TopBlocksRule", "decoder with sinkhorn": "CausalSinkhornLayer",
    "decoder with sinkhorn, mult conv": "CausalSinkhornLayer", "decoder with mult conv, hashed": "LSHRule",
    "decoder with mult conv averaged, hashed": "LSHRule", "decoder with dense averaged, hashed": "LSHRule",
    "decoder with infinite": "InfiniteLayer", "adaptive_span": "SpanAttentionLayer",
    "decoder with spans": "SpanAttentionLayer", "decoder with query spans": "SpanAttentionLayer",
    "decoder with relative keys": "RelativeKeysLayer", "decoder with channels": "ChannelEmbeddingLayer",
    "decoder with projected embedding": "ProjectedEmbeddingLayer",
    "slots of a source, linear": "LinformerCrossLayer", "slots of a source, pooled": "LinformerCrossLayer",
    "decoder with random blocks": "RandomBlocks.* without end", "spalm": "KeepInputsRule|TransformerXLLayer",
    "decoder with retrieval gate": "RetrievalGateLayer", "transformer_xl": "KeepInputsRule",
    "decoder with kept inputs": "KeepInputsRule", "decoder with transformer-xl, clamped": "TransformerXLLayer",
    "feedback_transformer": "FeedbackLayer", "decoder with feedback": "FeedbackLayer",
}  # fmt: skip
REFUSED |= {name: "GatedRule" for name in DECODERS if "Gated(" in repr(SPECS[name])}
REFUSED |= {name: "ACT" for name in DECODERS if any(isinstance(part, ACT) for part in parts_within(SPECS[name]))}
REFUSED |= {name: "HaltingLayer" for name in DECODERS if re.search("(Sequence|Multinomial)Halting", repr(SPECS[name]))}
REFUSED |= {name: "classifiers of exits" for name in DECODERS if "heads=Untied" in repr(SPECS[name])}
REFUSED |= {name: "MemorizingAttentionLayer" for name in DECODERS if "MemorizingAttention(" in repr(SPECS[name])}
REFUSED |= {name: "SwitchAttentionLayer" for name in DECODERS if "SwitchAttention(" in repr(SPECS[name])}
REFUSED |= {name: "CompressiveRule" for name in DECODERS if "CompressiveMemory(" in repr(SPECS[name])}
REFUSED |= {name: "ShawLayer" for name in DECODERS if name.endswith(" shaw") and name not in REFUSED}
KNOWN = [name for name in DECODERS if name not in REFUSED]
LENGTH, CLOSE = 41, {"atol": 1e-4, "rtol": 1e-4}

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def in_float32(name: str) -> nn.Module:
    return build(SPECS[name]).float()


def session_of(stream: Stream, rows: int = 1, kernel: str | None = None) -> Session:
    session = Engine(lower(stream.model), kernel).session(rows, threads=1)
    if stream.paired:
        give_encoded(session, stream.model, stream.model.start(stream.source[:rows]).encoded)
    return session


@pytest.fixture(autouse=True)
def no_gradients() -> None:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", KNOWN)
def test_a_prompt_and_single_tokens_give_what_the_modules_give(name: str) -> None:
    stream = Stream(in_float32(name), 1)
    inputs = tokens(1, LENGTH)
    session, row = session_of(stream), inputs[0].tolist()
    found = [session.step(row[:23], [0] * 23), *(session.step([token]) for token in row[23:])]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(found)), stream.whole(inputs)[0], **CLOSE)


@pytest.mark.parametrize("name", KNOWN)
def test_streams_of_many_lengths_go_on_side_by_side(name: str) -> None:
    stream = Stream(in_float32(name), 3)
    inputs, lengths = tokens(3, LENGTH), [5, 1, 19]
    session = session_of(stream, 3)
    expected = stream.whole(inputs)
    flat = [int(token) for row, length in zip(inputs, lengths, strict=True) for token in row[:length]]
    last = np.zeros(sum(lengths), bool)
    last[np.cumsum(lengths) - 1] = True
    found = torch.from_numpy(session.step(flat, np.repeat(np.arange(3), lengths), last))
    torch.testing.assert_close(found, torch.stack([expected[i, n - 1] for i, n in enumerate(lengths)]), **CLOSE)
    for step in range(20):
        rows = [2, 0, 1] if step % 2 else [0, 2]  # a stream may rest, and come in any order
        found = torch.from_numpy(session.step([int(inputs[row, lengths[row]]) for row in rows], rows))
        torch.testing.assert_close(found, torch.stack([expected[row, lengths[row]] for row in rows]), **CLOSE)
        lengths = [length + (row in rows) for row, length in enumerate(lengths)]


@pytest.mark.parametrize("name", REFUSED)
def test_a_part_without_a_rule_is_named(name: str) -> None:
    with pytest.raises(NoRuleError, match=REFUSED[name]):
        lower(in_float32(name))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_not_decoded(name: str) -> None:
    with pytest.raises(NoRuleError, match="no decoder with a head"):
        lower(in_float32(name))
