"""Attention by features, natively and by PyTorch: every map, on every kernel that runs here, token by token and at once."""

from typing import Any

import numpy as np
import pytest
import torch
from parts import built, program, ragged, run, table
from small import DIM, KERNELS, VOCAB, awake, decoder
from test_sparse_checks import changed, place_of
from test_sparse_parts import agree, places, same, sublayer

from formers import (
    MLP,
    ArcCosine,
    Block,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    Exits,
    FormersError,
    Hyperbolic,
    KernelAttention,
    KernelCrossAttention,
    Positive,
    RandomFourier,
    ReLUKernel,
    Rotary,
    Sinusoidal,
    SoftmaxResponse,
    SparseQueries,
    Trigonometric,
    Universal,
    stack,
)
from formers.attention import MultConv, SharedQK
from formers.attention.kernel.features import PositiveLayer
from formers.call import Call
from formers.native.engine.encoded import give_encoded
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
LAYERS = {
    "positive": KernelAttention(4, features=Positive(24)),
    "positive, many": KernelAttention(4, features=Positive(272)),
    "independent, of narrow heads": KernelAttention(3, 5, Positive(7, orthogonal=False)),
    "one direction, one channel": KernelAttention(2, 1, Positive(1, orthogonal=False)),
    "positive, gated": KernelAttention(4, features=Positive(40), gate=True),
    "hyperbolic, turned": KernelAttention(4, features=Hyperbolic(40), position=Rotary()),
    "trigonometric": KernelAttention(4, features=Trigonometric(512)),
    "relu": KernelAttention(4, features=ReLUKernel(33)),
    "fourier": KernelAttention(4, features=RandomFourier(150, pool=2)),
    "fourier, gated": KernelAttention(2, features=RandomFourier(64), gate=True),
    "arc-cosine": KernelAttention(4, 10, ArcCosine(9)),
    "arc-cosine, gated": KernelAttention(4, features=ArcCosine(70), gate=True),
    "unit keys": KernelAttention(4, features=Positive(24), projection=SharedQK()),
    "convolved": KernelAttention(4, features=Positive(24), gate=True, projection=MultConv()),
}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_kernel = pytest.mark.parametrize("kernel", KERNELS)


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def layer_of(spec: KernelAttention, dtype: str = "fp32", reach: float = 1.0) -> Any:
    """reach: what directions are multiplied by, and the peaks with them."""
    torch.manual_seed(0)
    part: Any = built(spec, dtype)
    if hasattr(part.features, "sharpness"):
        part.features.sharpness.uniform_(0.5, 1.5)
    else:
        part.features.drawn.directions.mul_(reach)
    return part


def out_of(part: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = part(x, Call(places(x))).y
    return y


@each_kernel
@each_layer
def test_every_map(name: str, kernel: str) -> None:
    part = layer_of(LAYERS[name])
    agree(sublayer(part), lambda x: out_of(part, x), 64, 64, "fp32", kernel)


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("name", ["relu", "positive, gated"])
def test_sums_stay_fp32_whatever_the_weights_are(name: str, dtype: str) -> None:
    part = layer_of(LAYERS[name], dtype)
    agree(sublayer(part), lambda x: out_of(part, x), 64, 64, dtype, KERNELS[-1])


@each_kernel
@pytest.mark.parametrize("name", ["positive, gated", "hyperbolic, turned", "fourier"])
def test_streams_of_different_lengths_do_not_meet(name: str, kernel: str) -> None:
    part = layer_of(LAYERS[name])
    streams = [list(range(length)) for length in (2, 30, 7, 55)]
    made = program(sublayer(part), 64, 64, "fp32")
    for tokens, found in zip(streams, ragged(made, streams, kernel), strict=True):
        same(found[None], out_of(part, table(64, 64)[torch.tensor([tokens])]), "fp32")


@each_kernel
def test_peaks_may_rise_by_more_than_numbers_reach(kernel: str) -> None:
    """What weighed anything then is nothing beside the highest key, and the output is that key's value."""
    part = layer_of(LAYERS["positive"], reach=60.0)
    made, tokens = program(sublayer(part), 64, 64, "fp32"), torch.arange(40)[None]
    x = table(64, 64)[tokens]
    k, _ = part.projection.keys_values(x)
    own = part.features(k, part.features.directions(Call(places(x)))).peak
    assert (own.cummax(-1).values.diff() > 88).any()
    found = run(made, tokens, kernel, at_once=True)
    assert found.isfinite().all()
    assert ((found - out_of(part, x)).norm(dim=-1) < 1e-3 * found.norm(dim=-1)).float().mean() > 0.9


@each_kernel
@pytest.mark.parametrize("sign", [-200.0, 200.0])
def test_gates_may_be_open_or_shut(sign: float, kernel: str) -> None:
    part = layer_of(LAYERS["positive, gated"])
    part.gate.bias.copy_(torch.tensor([sign, 0.0, -sign, sign]))
    agree(sublayer(part), lambda x: out_of(part, x), 64, 64, "fp32", kernel)


@each_kernel
def test_sines_of_large_numbers(kernel: str) -> None:
    part = layer_of(LAYERS["fourier"])
    for sharpness in (300.0, 1e7, 1e30):
        part.features.sharpness.fill_(sharpness)
        made = program(sublayer(part), 64, 64, "fp32")
        found = run(made, torch.arange(20)[None], kernel, at_once=False)
        assert found.isfinite().all() and found.std() > 0.01


@each_kernel
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["positive", "hyperbolic, turned", "trigonometric", "relu", "fourier"])
def test_numbers_that_are_none_are_not_hidden(name: str, number: float, kernel: str) -> None:
    part = layer_of(LAYERS[name])
    part.projection.v_proj.weight.fill_(number)
    made = program(sublayer(part), 64, 64, "fp32")
    assert not run(made, torch.tensor([[3, 4]]), kernel, at_once=True).isfinite().any()
    part.projection.k_proj.weight.fill_(number)
    made = program(sublayer(part), 64, 64, "fp32")
    assert not run(made, torch.tensor([[3, 4]]), kernel, at_once=False).isfinite().any()


@each_kernel
def test_the_number_of_threads_changes_nothing(kernel: str) -> None:
    made = program(sublayer(layer_of(LAYERS["positive, many"])), 64, 64, "fp32")
    one, three = (run(made, torch.arange(64)[None], kernel, at_once=True, threads=threads) for threads in (1, 3))
    torch.testing.assert_close(one, three, rtol=0, atol=0)


def test_a_stream_keeps_as_much_after_any_number_of_tokens() -> None:
    model, tokens = awake(decoder(KernelAttention(4, features=Positive(32), gate=True), MLP(48))), [*range(VOCAB)] * 10
    session = Engine(lower(model)).session(threads=2)
    session.read(tokens[:1])
    at_first = session.cache_bytes
    found = torch.from_numpy(np.stack([session.read(tokens[1:300]), session.read(tokens[300:])]))
    assert session.cache_bytes == at_first > 0
    torch.testing.assert_close(found, model(torch.tensor([tokens])).logits[0, [299, -1]], **CLOSE)
    session.reset(0)
    torch.testing.assert_close(
        torch.from_numpy(session.read(tokens[:9])), model(torch.tensor([tokens[:9]])).logits[0, -1], **CLOSE
    )


def test_a_block_that_is_applied_again_has_sums_for_each_time() -> None:
    block = Block((KernelAttention(4, features=Positive(20)), MLP(24)))
    model = awake(Decoder("again", VOCAB, DIM, (Universal(block, 3, halting=None),)))
    tokens = torch.randint(VOCAB, (1, 30))
    found = Engine(lower(model)).session(threads=1).step(tokens[0].tolist(), [0] * 30)
    torch.testing.assert_close(torch.from_numpy(found), model(tokens).logits[0], **CLOSE)


def test_sums_in_a_block_that_tokens_pass_by_are_refused() -> None:
    """They go through tokens in order, and those that have left are not read in their turn."""
    blocks = stack(Block((KernelAttention(4), MLP(24))), times=3)
    with pytest.raises(FormersError, match="no rule for KernelAttentionLayer, a sublayer that is passed by"):
        lower(awake(Decoder("early", VOCAB, DIM, (Exits(blocks, SoftmaxResponse(0.5)),))))


def test_a_map_of_ones_own_is_not_taken_for_another() -> None:
    class Odd(PositiveLayer):
        """Means something else."""

    model: Any = awake(decoder(KernelAttention(4)))
    model.stack.blocks[1].sublayers[0].features.__class__ = Odd
    with pytest.raises(FormersError, match="no rule for Odd, features of queries and keys"):
        lower(model)


@pytest.fixture
def pair() -> Any:
    """A model with sums across that have signs, and a floor."""
    reads = stack(Block((MLP(48),)), times=1)
    across = KernelCrossAttention(4, features=RandomFourier(40, pool=2), projection=SparseQueries())
    writes = stack(Block((KernelAttention(4, features=Hyperbolic(20)), across, MLP(48))), times=2)
    embedding = Embedding(Sinusoidal())
    sides = (kind("side", VOCAB, DIM, of, embedding) for kind, of in ((Encoder, reads), (Decoder, writes)))
    return awake(EncoderDecoder("pair", *sides))


@each_kernel
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_sums_across_are_given_and_only_read(pair: Any, dtype: str, kernel: str) -> None:
    source, target = torch.randint(VOCAB, (3, 9)), torch.randint(VOCAB, (3, 12))
    encoded = pair.start(source).encoded
    session = Engine(lower(pair, dtype), kernel).session(3, threads=2)
    give_encoded(session, pair, encoded)
    found = torch.from_numpy(np.stack([session.step(column.numpy()) for column in target.T], 1))
    close = CLOSE if dtype == "fp32" else {"atol": 0.1, "rtol": 0.1}
    torch.testing.assert_close(found, pair(source, target).logits, **close)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ints": (4, 8, 3, 1, 20, 32, 0)}, "room for features"),
        ({"ints": (4, 8, 2, 1, 20, 32, 1)}, "queries"),
        ({"ints": (4, 8, 9, 1, 20, 32, 0)}, "kind of the features is 9"),
        ({"floats": (1.0,)}, "number of floats"),
        ({"caches": (0,)}, "sums"),
    ],
)
def test_a_wrong_number_across_is_named(pair: Any, fields: dict[str, Any], words: str) -> None:
    whole = lower(pair)
    with pytest.raises(FormersError, match=words):
        Engine(changed(whole, place_of(whole, "feature_cross"), **fields))
