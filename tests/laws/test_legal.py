"""Legal or refused: a spec put together at random builds and keeps the laws, or is a ConfigError that lists its faults."""

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from subjects import Stream, build, tokens

from formers import (
    GLU,
    MLP,
    ALiBi,
    Attention,
    Axial,
    Block,
    Blocks,
    Causal,
    ConfigError,
    Convolutional,
    Decoder,
    Dense,
    DistanceAware,
    Embedding,
    Everything,
    LayerNorm,
    Learned,
    LocalHead,
    LowRank,
    LowRankHead,
    Modular,
    MultConv,
    Multiplicative,
    MultiplicativeHead,
    MultiplicativeModular,
    NoPosition,
    PostNorm,
    PreNorm,
    RMSNorm,
    Rotary,
    Shaw,
    Sinusoidal,
    SparseQueries,
    T5Buckets,
    Tied,
    TransformerXL,
    Untied,
    Window,
    stack,
)


def mostly(*legal: Any, faulty: Any) -> st.SearchStrategy[Any]:
    """One of the legal values, and now and then one that should be refused."""
    return st.sampled_from([*legal] * 6 + [faulty])


PATTERNS = st.one_of(
    mostly(None, Causal(), Causal() & Window(4), Causal() & Blocks(5), faulty=Window(4)),
    mostly(Causal() & (Window(3) | Blocks(4)), faulty=Everything()),
)
INSIDE = st.one_of(
    st.builds(Rotary, pairing=st.sampled_from(["halves", "adjacent"])),
    st.builds(T5Buckets, buckets=mostly(8, faulty=7), max_distance=st.just(12)),
    st.sampled_from([NoPosition(), ALiBi(), Shaw(2), TransformerXL(), DistanceAware()]),
)
ADDED = mostly(None, Sinusoidal(), Learned(40), Axial((5, 8), (6, 10)), faulty=Axial((5, 8), (6, 6)))
NORMS = mostly(LayerNorm(), LayerNorm(bias=False), RMSNorm(), faulty=RMSNorm(eps=0.0))
ATTENTION = st.builds(
    Attention,
    heads=mostly(2, 4, faulty=3),
    kv_heads=mostly(None, 1, 2, faulty=5),
    head_dim=mostly(None, 6, faulty=5),
    pattern=PATTERNS,
    position=INSIDE,
    projection=st.one_of(
        st.builds(Dense, bias=st.booleans()),
        st.builds(
            MultConv,
            modules=mostly(None, 2, 8, faulty=3),
            length=mostly(1, 2, 3, faulty=0),
            width=mostly(1, 3, 5, faulty=2),
            share_qk=st.sampled_from(["none", "same", "unit", "average"]),
            values=st.sampled_from(["none", "fixed", "original"]),
            output=st.sampled_from(["none", "mult", "conv", "multconv"]),
        ),
        st.builds(Convolutional, length=mostly(1, 3, faulty=0), width=mostly(1, 3, faulty=4)),
        st.builds(Multiplicative, modules=mostly(None, 2, faulty=3)),
        st.builds(MultiplicativeModular),
        st.builds(Modular, modules=mostly(None, 4, faulty=5), width=mostly(1, 3, faulty=2)),
        st.builds(LowRank, rank=mostly(2, 5, faulty=0)),
        st.just(SparseQueries()),
    ),
    heads_at_once=mostly(None, None, 1, 2, faulty=3),
    scale=st.sampled_from([None, 1.0]),
)
FEED = st.one_of(
    st.builds(MLP, hidden=mostly(8, faulty=0), activation=st.sampled_from(["relu", "gelu"])), st.just(GLU(8))
)
RESIDUAL = st.one_of(st.builds(PreNorm, norm=NORMS), st.builds(PostNorm, norm=NORMS))
SUBLAYERS = st.lists(st.one_of(ATTENTION, ATTENTION, FEED), min_size=1, max_size=3).map(tuple)
BLOCK = st.builds(Block, sublayers=st.one_of(*[SUBLAYERS] * 9, st.just(())), residual=RESIDUAL)
SPEC = st.builds(
    lambda blocks, times, position, norm, head: Decoder(
        "random", 40, 16, stack(*blocks, times=times), Embedding(position), norm, head
    ),
    blocks=st.lists(BLOCK, min_size=1, max_size=2),
    times=st.integers(1, 2),
    position=ADDED,
    norm=st.one_of(st.none(), NORMS),
    head=st.sampled_from([Tied(), Tied(bias=True), Untied(), MultiplicativeHead(3), LowRankHead(3), LocalHead(4, 3)]),
)


@given(spec=SPEC)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_random_spec_keeps_the_laws_or_is_refused(spec: Any) -> None:
    try:
        model = build(spec)
    except ConfigError as error:
        assert "problem" in str(error)
        assert "random.blocks" in str(error) or "random.norm" in str(error) or "random.embedding" in str(error)
        return
    stream, inputs = Stream(model, 2), tokens(2, 13)
    mask = torch.ones_like(inputs, dtype=torch.bool)
    mask[1, :4] = False
    with torch.no_grad():
        whole, state, steps = stream.whole(inputs, mask), stream.begin(), []
        for t in range(13):
            logits, state = stream.piece(inputs[:, t : t + 1], state, mask[:, t : t + 1])
            steps.append(logits)
        torch.testing.assert_close(torch.cat(steps, 1)[mask], whole[mask])
        torch.testing.assert_close(stream.whole(inputs[1:, 4:])[0], whole[1, 4:])
        changed = stream.whole(torch.cat([inputs[:, :9], (inputs[:, 9:] + 1) % 40], 1), mask)
        torch.testing.assert_close(changed[:, :9][mask[:, :9]], whole[:, :9][mask[:, :9]])
