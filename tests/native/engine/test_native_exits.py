"""Early exits in the engine: blocks that no token needs are not run, and programs that move rows wrongly are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from small import KERNELS, VOCAB, awake
from test_program import changed, of_name

from formers import (
    MLP,
    Attention,
    Block,
    CrossAttention,
    Decoder,
    Encoder,
    EncoderDecoder,
    Exits,
    FormersError,
    PostNorm,
    Rotary,
    SoftmaxResponse,
    SparseQueries,
    stack,
)
from formers.native.engine.lower import lower
from formers.native.engine.program import Program
from formers.native.engine.run import Engine

DEPTH = 3


def decoder(threshold: float | None, residual: Any = None) -> Decoder:
    sublayers = (Attention(4, kv_heads=2, position=Rotary()), MLP(48))
    block = Block(sublayers) if residual is None else Block(sublayers, residual)
    return Decoder("early", VOCAB, 32, (Exits(stack(block, times=DEPTH), SoftmaxResponse(threshold)),))


def prompt(length: int) -> list[int]:
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(3)).tolist()


def run_of(program: Program, label: str, tokens: list[int]) -> list[bool]:
    """Which operations of a name took any time."""
    session = Engine(program).session(threads=1)
    with session.profiled() as spent:
        session.read(tokens)
    return [each.seconds > 0 for each in spent if each.operation == label]


@pytest.mark.parametrize(("threshold", "blocks"), [(0.0, 1), (1.0, DEPTH), (None, DEPTH)])
def test_a_block_that_nobody_needs_is_not_run(threshold: float | None, blocks: int) -> None:
    program = lower(awake(decoder(threshold)))
    assert run_of(program, "attend", prompt(9)) == [True] * blocks + [False] * (DEPTH - blocks)
    kept = run_of(program, "keep", prompt(9))
    assert kept == ([] if threshold is None else [blocks == 1] * (DEPTH - 1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("residual", [None, PostNorm()])
def test_tokens_that_leave_at_different_blocks_stand_in_their_order_again(residual: Any, kernel: str) -> None:
    model, tokens = awake(decoder(0.04, residual)), prompt(150)
    with torch.inference_mode():
        out = model(torch.tensor([tokens]))
    assert len(out.records["leaves"][0].unique()) > 1
    found = Engine(lower(model), kernel).session(threads=1).step(tokens, [0] * len(tokens))
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(torch.from_numpy(np.array(found)), out.logits[0], **close)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("response", {"writes": (0,)}, "width of a confidence"),
        ("leave", {"floats": (0.5,)}, "number of floats"),
        ("leave", {"writes": (0, 0)}, "moves with its rows once"),
        ("others", {"ints": (0,)}, "operations for those that have left is 0"),
        ("others", {"ints": (10_000,)}, "operations for those that have left are not there"),
        ("others", {"ints": (40,)}, "cannot move again"),
        ("keep", {"ints": (2, 8, 8, 0, 99)}, "what is kept"),
        ("keep", {"ints": (4, 8, 8, 0, 32)}, "^$|heads of a cache|what is kept"),
        ("keep", {"caches": (0, 99)}, "cache is 99"),
        ("rejoin", {"writes": (999,)}, "register is 999"),
    ],
)
def test_what_is_not_sound_is_refused(name: str, fields: dict[str, Any], words: str) -> None:
    whole = lower(awake(decoder(0.5)))
    with pytest.raises(FormersError, match=words):
        Engine(changed(whole, of_name(whole, name), **fields))


@pytest.mark.parametrize(
    ("taken", "words"), [("leave", "nobody has left"), ("rejoin", "for all tokens, and some have left")]
)
def test_rows_cannot_be_lost(taken: str, words: str) -> None:
    whole = lower(awake(decoder(0.5)))
    ops = list(whole.ops)
    nothing = ops[of_name(whole, "copy")]
    for place, op in enumerate(ops):
        if op.name == taken:
            ops[place] = nothing
    with pytest.raises(FormersError, match=words):
        Engine(Program(**{**vars(whole), "ops": tuple(ops)}))


def test_a_cross_attention_that_remembers_its_tokens_is_refused() -> None:
    """Its convolution sees tokens that have left, and nobody leaves them there."""
    cross = CrossAttention(4, projection=SparseQueries())
    blocks = stack(Block((Attention(4), cross, MLP(48))), times=DEPTH)
    target = Decoder("target", VOCAB, 32, (Exits(blocks, SoftmaxResponse(0.5)),))
    source = Encoder("source", VOCAB, 32, stack(Block((MLP(48),)), times=1), head=None)
    with pytest.raises(FormersError, match="no rule for SparseQueriesLayer, a projection that remembers tokens"):
        lower(awake(EncoderDecoder("early", source, target)))
