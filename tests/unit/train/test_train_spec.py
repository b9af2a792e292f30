import pytest

from formers.errors import ConfigError
from formers.spec import assign, from_json, to_json
from formers.train import Adafactor, AdamW, Constant, InverseSquareRoot, TrainSpec


def test_json_brings_back_the_same_spec():
    spec = TrainSpec(
        steps=7, optimizer=Adafactor(learning_rate=0.02), schedule=InverseSquareRoot(9), clip=None, precision="bf16"
    )
    assert from_json(to_json(spec)) == spec


def test_all_problems_are_told_at_once():
    spec = TrainSpec(
        steps=0,
        batch=7,
        accumulation=2,
        optimizer=AdamW(learning_rate=-1.0, betas=(0.9, 1.0)),
        schedule=Constant(-5),
        clip=0.0,
        label_smoothing=1.0,
        evaluate_tokens=0,
        seed=-1,
    )
    with pytest.raises(ConfigError) as caught:
        spec.check()
    told = str(caught.value)
    assert "9 problems" in told
    for part in ("steps=0", "7 rows", "clip=0.0", "label_smoothing=1.0", "evaluate_tokens=0", "seed=-1"):
        assert part in told
    assert "train.optimizer: learning_rate=-1.0" in told and "betas=(0.9, 1.0)" in told and "warm_up=-5" in told


def test_the_accumulation_that_is_proposed_works():
    with pytest.raises(ConfigError, match="fix: accumulation=4"):
        TrainSpec(steps=1, batch=16, accumulation=7).check()
    TrainSpec(steps=1, batch=16, accumulation=4).check()


def test_a_wrong_type_is_told_with_its_path():
    with pytest.raises(ConfigError, match=r"train\.precision: 'fp16' .* one of 'fp32', 'bf16'"):
        TrainSpec(steps=1, precision="fp16").check()  # type: ignore[arg-type]


def test_every_field_can_be_set_by_its_path():
    spec = assign(TrainSpec(steps=1), "optimizer=Adafactor(learning_rate=0.02)")
    assert assign(spec, "optimizer.clip=2").optimizer == Adafactor(learning_rate=0.02, clip=2)
