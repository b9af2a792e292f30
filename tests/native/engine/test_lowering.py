"""Parts that no member has, or not in this place, lower too; what has no rule is refused by its name."""

from typing import Any

import pytest
import torch
from small import DIM, VOCAB, awake, decoder

from formers import (
    GLU,
    MLP,
    Attention,
    Block,
    Causal,
    Decoder,
    Embedding,
    FormersError,
    LayerNorm,
    MaskedLM,
    Parallel,
    PostNorm,
    PreNorm,
    Rotary,
    Same,
    SharedQK,
    Tied,
    Untied,
    stack,
)
from formers.feedforward import ACTIVATIONS, MLPLayer
from formers.native.engine.lower import lower, outline
from formers.native.engine.run import Engine
from formers.position.fixed_base import FixedBase
from formers.position.infinite import Infinite
from formers.position.tables import LearnedLowRank, LearnedSinusoidal
from formers.position.time_bin import TimeBin

MODELS = {
    "no last norm": decoder(Attention(2, head_dim=6, position=Rotary(pairing="adjacent"), scale=0.3), norm=None),
    "rotary unit keys": decoder(Attention(4, projection=SharedQK(), position=Rotary(), scale=1.0), MLP(24)),
    "segments and a norm": decoder(MLP(24), embedding=Embedding(segments=2, norm=LayerNorm(), scaled=True)),
    "masked head": decoder(MLP(24), head=MaskedLM(activation="silu")),
    "biased heads": decoder(MLP(24), head=Tied(bias=True)),
    "biased untied": decoder(GLU(24, bias=True), head=Untied(bias=True)),
    "side by side": decoder(Parallel((Attention(2), MLP(24), Attention(4, kv_heads=1)))),
    "side by side, normed": decoder(Parallel((Attention(2), MLP(24)), norm=LayerNorm())),
    "behind": Decoder("behind", VOCAB, DIM, stack(Block((Attention(2), MLP(24)), PostNorm()), times=2)),
    "within blocks": Decoder("within", VOCAB, DIM, stack(Block((Parallel((MLP(8),)), MLP(24)), PreNorm()), times=2)),
    "fixed base": decoder(Attention(2), embedding=Embedding(FixedBase())),
    "time bin": decoder(Attention(2), embedding=Embedding(TimeBin(3))),
    "sinusoidal table": decoder(Attention(2), embedding=Embedding(LearnedSinusoidal(16))),
    "table of low rank": decoder(Attention(2), embedding=Embedding(LearnedLowRank(16, rank=4))),
}
MODELS |= {name: decoder(MLP(24, name)) for name in ACTIVATIONS} | {
    f"{n} gate": decoder(GLU(24, n)) for n in ACTIVATIONS
}
REFUSED = {
    "InfiniteLayer, a position": decoder(MLP(8), embedding=Embedding(Infinite())),
    r"Causal\(\) & Same": decoder(Attention(2, pattern=Causal() & Same("document"))),
}


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch(name: str) -> None:
    model, tokens = awake(MODELS[name]), torch.randint(VOCAB, (1, 16))
    session = Engine(lower(model)).session(threads=1)
    row = tokens[0].tolist()
    found = torch.cat(
        [torch.from_numpy(session.step(part, [0] * len(part))) for part in (row[:9], row[9:10], row[10:])]
    )
    with torch.inference_mode():
        torch.testing.assert_close(found, model(tokens).logits[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("named", REFUSED)
def test_what_has_no_rule_is_named(named: str) -> None:
    with pytest.raises(FormersError, match=named):
        lower(awake(REFUSED[named]))


def test_a_part_that_inherits_from_a_known_one_is_not_taken_for_it() -> None:
    class OtherMLP(MLPLayer):
        """Means something else."""

    model: Any = awake(decoder(MLP(8)))
    model.stack.blocks[1].sublayers[0].__class__ = OtherMLP
    with pytest.raises(FormersError, match="no rule for OtherMLP, a sublayer"):
        lower(model)


def test_lowering_leaves_the_model_and_copies_its_weights() -> None:
    model = awake(decoder(MLP(8)))
    engine = Engine(lower(model))
    before = engine.session().read([1, 2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (engine.session().read([1, 2]) == before).all()


def test_a_program_that_is_not_packed_is_not_run() -> None:

    with pytest.raises(FormersError, match="not packed yet"):
        Engine(outline(awake(decoder(MLP(8)))))
