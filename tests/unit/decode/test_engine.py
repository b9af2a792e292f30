"""The engines write the same text, alone and side by side, by any way of sampling."""

import pytest
import torch
from torch import nn

from formers import FormersError, make
from formers.decode import GREEDY, Sampling, generate, stream_batch
from formers.decode.engine import choose_engine
from formers.native.engine.library import missing

SMALL = {"vocab": 40, "dim": 32, "depth": 2, "heads": 4, "hidden": 48}
PROMPTS = [[3, 1, 4, 1, 5, 9], [2], [7, 18, 28, 18, 2, 8, 4, 5, 9, 0, 4, 5], [6, 2]]
WAYS = [GREEDY, Sampling(0.8, top_k=9), Sampling(1.3, top_p=0.9, repetition_penalty=1.4)]

built = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def model(name: str, **fields: object) -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        torch.manual_seed(1)
        return make(name, **SMALL | fields).build()
    finally:
        torch.set_default_dtype(before)


@built
@pytest.mark.parametrize("sampling", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "transformer", "bloom"])
def test_engines_write_the_same(name: str, sampling: Sampling) -> None:
    written = {
        engine: generate(model(name), PROMPTS, max_new=20, sampling=sampling, stop=11, start=0, seed=5, engine=engine)
        for engine in ("native", "torch")
    }
    assert written["native"] == written["torch"]


@built
def test_rows_that_end_leave_the_others_alone() -> None:
    gpt2 = model("gpt2", length=16)
    together = generate(gpt2, PROMPTS, max_new=30, sampling=GREEDY, engine="native")
    assert [row.finish for row in together] == ["length"] * 4
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = generate(gpt2, [prompt], max_new=30, sampling=GREEDY, engine="native")
        assert alone.tokens == row.tokens


@built
def test_a_choice_that_is_made_once_serves_many_prompts() -> None:
    llama = model("llama")
    choice = choose_engine(llama, "native", "bf16").packed()
    assert choice.packed().program.matrices[0].data is choice.program.matrices[0].data
    for prompt in PROMPTS:
        again, anew = (
            generate(llama, [prompt], max_new=9, sampling=GREEDY, **how)
            for how in ({"engine": choice}, {"engine": "native", "dtype": "bf16"})
        )
        assert again == anew
    with pytest.raises(FormersError, match="choose_engine"):
        generate(llama, [[1]], max_new=1, engine=choice, dtype="int8")


@built
def test_a_model_in_training_is_left_as_it_was() -> None:
    transformer = model("transformer", dropout=0.5).train()
    first, second = (generate(transformer, PROMPTS, max_new=9, sampling=GREEDY, start=0) for _ in range(2))
    assert first == second and all(module.training for module in transformer.modules())


@built
@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_weights_of_any_type_write(dtype: str) -> None:
    (row,) = generate(model("llama"), [[1, 2, 3]], max_new=9, sampling=GREEDY, dtype=dtype)
    assert len(row.tokens) == 9


@built
def test_logits_that_are_not_finite_are_refused() -> None:
    broken = model("gpt2")
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    with pytest.raises(FormersError, match="not finite"):
        generate(broken, [[1]], max_new=3, engine="native")


@built
def test_what_is_chosen_and_why() -> None:
    assert choose_engine(model("gpt2")).program is not None
    assert choose_engine(model("gpt2"), "torch") == (None, "it was asked for")
    assert "CausalSinkhornLayer" in str(choose_engine(model("sinkhorn_transformer")).why)
    with pytest.raises(FormersError, match=r"CausalSinkhornLayer.*; the engine 'native' cannot be had"):
        choose_engine(model("sinkhorn_transformer"), "native")


def test_engines_that_cannot_be_are_refused() -> None:
    for given, words in (
        ({"engine": "abacus"}, "no engine 'abacus'; choose one of auto, native, torch"),
        ({"dtype": "fp8"}, "weights can be fp32"),
        ({"engine": "torch", "dtype": "int8"}, "weights in int8 are the native engine's"),
    ):
        with pytest.raises(FormersError, match=words):
            choose_engine(model("gpt2"), **given)
        with pytest.raises(FormersError, match=words):
            stream_batch(model("gpt2"), [[1]], max_new=1, **given)
