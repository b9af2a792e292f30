"""Keys and values in halves: half the memory, and logits that differ by no more than the rounding, in every kernel."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import KERNELS, LEARNED, ROLLING, SLOPES, VOCAB, awake, kept_in

from formers import FormersError, make
from formers.native.engine.encoded import give_encoded
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("spec", [LEARNED, ROLLING, SLOPES])
def test_halves_round_and_do_no_more(spec: Any, kernel: str) -> None:
    program = lower(awake(spec), "fp32")
    tokens = torch.randint(VOCAB, (2, 22)).numpy()
    whole, half = (Engine(each, kernel).session(2) for each in (program, kept_in(program, "bf16")))
    for streams in (whole, half):
        streams.step(tokens[:, :9].flatten(), [0] * 9 + [1] * 9)
    for place in range(9, 22):
        wanted, found = (streams.step(tokens[:, place]) for streams in (whole, half))
        assert 0 < np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    assert half.cache_bytes * 2 == whole.cache_bytes


def test_what_an_encoder_gives_is_kept_in_halves_too() -> None:
    spec = make("transformer", vocab=VOCAB, dim=32, heads=4, depth=2, hidden=48, dropout=0.0)
    model: Any = awake(spec)
    source = torch.randint(1, VOCAB, (2, 11))
    logits = []
    for program in (lower(model, "fp32"), kept_in(lower(model, "fp32"), "bf16")):
        streams = Engine(program).session(2)
        with torch.inference_mode():
            give_encoded(streams, model, model.start(source).encoded)
        logits.append(streams.step([1, 2]))
    assert 0 < np.abs(logits[1] - logits[0]).max() < 0.01 * np.abs(logits[0]).max()


def test_weights_in_halves_keep_halves() -> None:
    kept = {dtype: {cache.type for cache in lower(awake(LEARNED), dtype).caches} for dtype in ("fp32", "bf16", "int8")}
    assert kept == {"fp32": {"fp32"}, "bf16": {"bf16"}, "int8": {"bf16"}}


def test_caches_of_other_types_are_refused() -> None:
    program = lower(awake(LEARNED), "fp32")
    first, *others = program.caches
    with pytest.raises(FormersError, match="the type of a cache"):
        Engine(kept_in(program, "int8"))
    with pytest.raises(FormersError, match="the caches differ"):
        Engine(replace(program, caches=(first._replace(type="bf16"), *others)))
