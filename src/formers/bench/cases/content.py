"""Attention that goes by content: one layer, forward and backward, ours against the packages of those names and SDPA."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from formers.attention import LSH, Attention, Causal, Dense, SharedQK, Window
from formers.attention.routing import Routing
from formers.attention.sinkhorn import SinkhornAttention
from formers.attention.top_blocks.rule import TopBlocks
from formers.bench.lesson import Plain, Shape, Turn, lesson, ours
from formers.bench.memory import in_fresh_process
from formers.bench.race import race
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.call import Layer
from formers.family.content import reformer
from formers.parallel import Parallel
from formers.position import SelfLast
from formers.report.rows import Row, ratio_at_least, value_at_most

EXTRA = "rivals-content"
SDPA = Rival("causal scaled_dot_product_attention, with products for queries, keys, values and output")
REFORMER_PYTORCH = Rival("reformer-pytorch's LSHSelfAttention", package="reformer-pytorch", extra=EXTRA)
HUGGING_FACE = Rival("transformers' ReformerModel, one hashing layer", package="transformers")
SINKHORN = Rival("sinkhorn-transformer's SinkhornSelfAttention", package="sinkhorn-transformer", extra=EXTRA)
ROUTING = Rival("routing-transformer's SelfAttention", package="routing-transformer", extra=EXTRA)

FULL, TINY = Shape(), Shape(256, dim=32, heads=2, chunk=16, rounds=2, window=16, hidden=64)


def shape_of(trial: Trial, length: int) -> Shape:
    """The shape at a length, or a tiny one where the trial is to be quick."""
    return replace(TINY, length=TINY.length * length // FULL.length) if trial.quick else replace(FULL, length=length)


def hashing(shape: Shape) -> Attention:
    """Our LSH attention."""
    select = LSH(chunk=shape.chunk, rounds=shape.rounds)
    return Attention(shape.heads, projection=SharedQK(), position=SelfLast(), scale=1.0, select=select)


def sdpa(shape: Shape) -> Turn:
    """The rival that PyTorch itself has."""
    return lesson(Plain(shape), shape)


@BENCHES.case(
    "content",
    "LSH attention (dim 512, 8 heads, chunk 64, 4 rounds), 16,384 tokens, against reformer-pytorch",
    unit="ms",
    better="lower",
    rival=REFORMER_PYTORCH,
    goal=ratio_at_least(3),
)
def beside_reformer_pytorch(trial: Trial) -> Iterator[Row]:
    """Theirs with its defaults, which count a pair as often as it is met; ours counts it once."""
    shape = shape_of(trial, 16_384)

    def make_rival() -> Turn:
        from reformer_pytorch import LSHSelfAttention

        sizes = {"heads": shape.heads, "bucket_size": shape.chunk, "n_hashes": shape.rounds}
        return lesson(LSHSelfAttention(shape.dim, causal=True, **sizes).train(), shape)

    duel = trial.duel(ours(hashing(shape), shape), make_rival, warmup=1, rounds=5)
    yield trial.row(f"LSH attention beside reformer-pytorch, {shape.length:,} tokens", *duel.milliseconds())


@BENCHES.case(
    "content",
    "LSH attention against causal SDPA, 16,384 and 65,536 tokens",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def beside_sdpa(trial: Trial) -> Iterator[Row]:
    """At the greater length one pass of SDPA takes minutes."""
    for length, times, warmup, rounds in ((16_384, 3, 1, 5), (65_536, 12, 0, 2)):
        shape = shape_of(trial, length)
        turn = ours(hashing(shape), shape)
        if not warmup:
            turn()
        duel = trial.duel(turn, partial(sdpa, shape), warmup=warmup, rounds=rounds)
        note = "" if warmup else f"{rounds} turns, SDPA without a warm-up"
        name = f"LSH attention beside SDPA, {shape.length:,} tokens"
        yield trial.row(name, *duel.milliseconds(), goal=ratio_at_least(times), note=note)


@BENCHES.case("content", "LSH attention, time per token from 8,192 to 131,072 tokens", unit="us", better="lower")
def per_token(trial: Trial) -> Iterator[Row]:
    """Each length in a process of its own, behind two passes: from the third on, room that was kept is used again."""
    shapes = [shape_of(trial, length) for length in (8_192, 16_384, 32_768, 65_536, 131_072)]
    each: dict[str, float] = {}
    with trial.progress(trial.case.title, len(shapes)) as tick:
        for shape in shapes:
            seconds = in_fresh_process(seconds_of_hashing, shape, 1 if trial.quick else 5, give_back=False)
            each[f"{shape.length:,}"] = 1e6 * seconds / shape.length
            tick()
    for name, value in each.items():
        yield trial.row(f"a token of {name}", value)
    apart = max(each.values()) / min(each.values())
    yield trial.row("largest over smallest time per token", apart, unit="times", goal=value_at_most(1.3))


def seconds_of_hashing(shape: Shape, rounds: int) -> float:
    """The median of a forward and backward pass."""
    return race({"": ours(hashing(shape), shape)}, warmup=2, rounds=rounds)[""]


@BENCHES.case(
    "content",
    "one-layer Reformer (hashing, feed-forward of 512, their default), 16,384 tokens, against transformers",
    unit="ms",
    better="lower",
    rival=HUGGING_FACE,
    goal=ratio_at_least(6),
)
def beside_hugging_face(trial: Trial) -> Iterator[Row]:
    """Both in training mode without dropout: embedding, axial positions, reversible layer, last norm."""
    shape = shape_of(trial, 16_384)
    duel = trial.duel_apart(partial(one_layer, shape), partial(their_layer, shape), warmup=2, rounds=5)
    yield trial.row(f"one-layer Reformer, {shape.length:,} tokens", *duel.milliseconds())


def bytes_of(shape: Shape) -> Tensor:
    """(1, length), drawn."""
    return torch.randint(256, (1, shape.length), generator=torch.Generator().manual_seed(0))


def one_layer(shape: Shape) -> Turn:
    """Ours."""
    tokens = bytes_of(shape)
    sizes = {"dim": shape.dim, "heads": shape.heads, "hidden": shape.hidden, "chunk": shape.chunk}
    axes = (side(shape), side(shape))
    spec = reformer(256, depth=1, layers=("lsh",), rounds=shape.rounds, buckets=None, shape=axes, dropout=0.0, **sizes)
    model = spec.replace(head=None).build().train()

    def turn() -> None:
        model(tokens, remember=False).hidden.square().mean().backward()

    return turn


def their_layer(shape: Shape) -> Turn:
    """That of transformers. It has no head either."""
    from transformers import ReformerConfig, ReformerModel

    tokens = bytes_of(shape)
    config = ReformerConfig(
        attn_layers=["lsh"],
        vocab_size=256,
        hidden_size=shape.dim,
        num_attention_heads=shape.heads,
        attention_head_size=shape.dim // shape.heads,
        feed_forward_size=shape.hidden,
        lsh_attn_chunk_length=shape.chunk,
        num_hashes=shape.rounds,
        axial_pos_shape=[side(shape), side(shape)],
        axial_pos_embds_dim=[shape.dim // 4, shape.dim - shape.dim // 4],
        max_position_embeddings=shape.length,
        hidden_dropout_prob=0.0,
        is_decoder=True,
        use_cache=False,
    )
    model = ReformerModel(config).train()

    def turn() -> None:
        model(tokens).last_hidden_state.square().mean().backward()

    return turn


def side(shape: Shape) -> int:
    """Of the square of axial positions: transformers wants it filled while training."""
    return math.isqrt(shape.length)


@BENCHES.case(
    "content",
    "Sinkhorn attention (blocks of 64, one sorted block, 8 iterations), 8,192 tokens, against sinkhorn-transformer",
    unit="ms",
    better="lower",
    rival=SINKHORN,
    goal=ratio_at_least(2),
)
def beside_sinkhorn(trial: Trial) -> Iterator[Row]:
    """Theirs sorts one block to each as well, and not two as its default is."""
    shape = shape_of(trial, 8_192)
    spec = SinkhornAttention(shape.heads, block=shape.chunk, iterations=8, projection=Dense(bias=False))

    def make_rival() -> Turn:
        from sinkhorn_transformer.sinkhorn_transformer import SinkhornSelfAttention

        options = {"heads": shape.heads, "causal": True, "n_top_buckets": 1, "sinkhorn_iter": 8}
        return lesson(SinkhornSelfAttention(shape.dim, shape.chunk, shape.length, **options).train(), shape)

    duel = trial.duel(ours(spec, shape), make_rival)
    yield trial.row(f"Sinkhorn attention, {shape.length:,} tokens", *duel.milliseconds())


@BENCHES.case(
    "content",
    "Routing attention (windows of 128, tokens / 128 clusters), 8,192 tokens, against routing-transformer",
    unit="ms",
    better="lower",
    rival=ROUTING,
    goal=ratio_at_least(1.3),
)
def beside_routing(trial: Trial) -> Iterator[Row]:
    """With all heads routed and with half of them local, as published, each by both of our selections."""
    shape = shape_of(trial, 8_192)
    for local, heads in ((0, "all heads routed"), (shape.heads // 2, "half of the heads local")):
        for balanced, name in ((False, "strict"), (True, "balanced, as theirs")):
            layer, make_rival = routed(shape, local, balanced), their_routing(shape, local)
            duel = trial.duel(ours(layer, shape), make_rival, rounds=5)
            yield trial.row(f"Routing attention, {heads}, {name}, {shape.length:,} tokens", *duel.milliseconds())


def routed(shape: Shape, local: int, balanced: bool) -> Layer:
    """Ours, with so many heads local."""
    select = Routing(shape.length // shape.window, shape.window, balanced=balanced)
    width = shape.dim // shape.heads
    attention = Attention(
        shape.heads - local, head_dim=width, projection=SharedQK(), position=SelfLast(), scale=1.0, select=select
    )
    if not local:
        return attention
    return Parallel((Attention(local, head_dim=width, pattern=Causal() & Window(shape.window)), attention))


def their_routing(shape: Shape, local: int) -> Callable[[], Turn]:
    """Theirs, alike."""

    def make() -> Turn:
        from routing_transformer.routing_transformer import SelfAttention

        sizes = {"local_attn_window_size": shape.window, "causal": True, "shared_qk": True}
        layer = SelfAttention(shape.dim, 1, shape.length, shape.heads, local, shape.window, **sizes)
        return lesson(layer.train(), shape)

    return make


@BENCHES.case(
    "content",
    "attention to blocks chosen by content (own block of 64 and 4 others), 16,384 tokens, against causal SDPA",
    unit="ms",
    better="lower",
    rival=SDPA,
)
def blocks_beside_sdpa(trial: Trial) -> Iterator[Row]:
    """The alternative that decodes exactly."""
    shape = shape_of(trial, 16_384)
    spec = Attention(shape.heads, select=TopBlocks(block=shape.chunk, count=4))
    duel = trial.duel(ours(spec, shape), partial(sdpa, shape), warmup=1, rounds=3)
    yield trial.row(f"TopBlocks attention, {shape.length:,} tokens", *duel.milliseconds())
