"""What devices hold and send, by hand; and which way is recommended."""

import pytest

from formers import make
from formers.distributed import Distribution
from formers.errors import ConfigError
from formers.plan.device import DEVICES, bytes_of
from formers.plan.report import verdict
from formers.plan.setup import Setup
from formers.plan.shard import Sharding, shardings
from formers.plan.step import Step
from formers.plan.training import TrainingPlan, plan_training, recomputing
from formers.plan.weights import Weights, weights_of
from formers.train import Adafactor, TrainSpec

WEIGHTS = Weights(total=1000, experts=800, largest=300, largest_experts=200, rest=100, seats=10.0)
STEP = Step(
    {
        "forward": {"weights": 4000, "optimizer": 8000, "activations": 5000},
        "update": {"weights": 4000, "optimizer": 8000, "gradients": 4000},
    },
    passes=0,
    update=0,
)
SIZES = {"vocab": 500, "dim": 64, "depth": 2, "heads": 2, "length": 64}
TRAINING = TrainSpec(steps=1, batch=8, length=64)


def plan(memory: int, devices: int = 4, training: TrainSpec = TRAINING, name: str = "gpt2") -> TrainingPlan:
    return plan_training(Setup(make(name, **SIZES), devices, DEVICES["a100"], memory, 0.5), training)


def test_data_parallel_devices_hold_everything_and_sum_gradients_in_a_ring() -> None:
    sharding = Sharding("", Distribution(), 4, WEIGHTS)
    assert sum(sharding.peak(STEP).values()) == 17_000
    assert sharding.sent(tokens=7, pieces=3) == (2 * 4 * 1000 * 3 / 4, 0)


def test_full_shards_hold_a_share_and_gather_parts() -> None:
    sharding = Sharding("", Distribution(shard="full"), 4, WEIGHTS)
    held = sharding.held(STEP)
    assert held["update"] == {"weights": 1000, "optimizer": 2000, "gradients": 1000}
    assert held["forward"]["gathered"] == 4 * (2 * 300 + 100) * 3 / 4
    assert sharding.sent(tokens=7, pieces=2) == (2 * 3 * 4 * 1000 * 3 / 4, 0)


def test_divided_experts_are_held_once_and_their_tokens_travel() -> None:
    sharding = Sharding("", Distribution(divide_experts=4), 4, WEIGHTS)
    assert sharding.held(STEP)["update"]["weights"] == 4 * (200 + 800 / 4)
    ring, seats = sharding.sent(tokens=7, pieces=1)
    assert ring == 2 * 4 * 200 * 3 / 4  # nobody else holds the same experts
    assert seats == 4 * 4 * 7 * 10 * 3 / 4


def test_experts_are_divided_over_as_many_devices_as_share_them_equally() -> None:
    names = [sharding.name for sharding in shardings(WEIGHTS, experts=6, devices=4, training=TRAINING)]
    assert names == ["data parallel", "experts over 2", "full shard", "full shard, experts over 2"]
    whole = TRAINING.replace(optimizer=Adafactor())
    assert [sharding.name for sharding in shardings(WEIGHTS, 0, 4, whole)] == ["data parallel"]
    assert [sharding.name for sharding in shardings(WEIGHTS, 6, 1, TRAINING)] == ["one device"]


def test_weights_are_those_of_the_model() -> None:
    spec = make("switch", **SIZES | {"depth": 8}, experts=4)
    model, weights = spec.build(), weights_of(spec)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    assert (weights.total, weights.experts) == (numbers, experts)
    assert weights.seats == 4 * 1.25 * 64  # four layers, 64 wide


def test_the_fastest_that_fits_is_recommended() -> None:
    roomy = plan(10**9)
    assert roomy.best is not None
    assert roomy.best.name == "data parallel"
    told = verdict(roomy, "gpt2", None)
    assert "torchrun --nproc-per-node 4 -m formers train gpt2 --batch 8 --length 64" in told
    least = min(candidate.total for candidate in roomy.candidates)
    tight = plan(round(least / 0.9) + 1)
    assert tight.best is not None
    assert tight.best.total == least
    assert tight.best.sharding.full and tight.best.recomputed
    assert "--shard full" in verdict(tight, "gpt2", "model.json") and "train model.json" in verdict(
        tight, "gpt2", "model.json"
    )


def test_less_memory_wants_pieces_and_in_the_end_nothing_fits() -> None:
    one = plan(10**9, devices=1)
    whole, recomputed = (candidate.total for candidate in one.candidates)
    assert recomputed < whole
    small = plan(round(recomputed), devices=1)
    assert small.best is not None
    assert small.best.pieces > 1
    none = plan(10**6, devices=1)
    assert none.best is None
    assert "plan more --devices" in verdict(none, "gpt2", None)


def test_what_is_recomputed_already_is_not_again() -> None:
    assert recomputing(make("reformer")) is None
    changed = recomputing(make("gpt2", **SIZES))
    assert changed is not None and recomputing(changed) is None


@pytest.mark.parametrize(("text", "size"), [("80GB", 80 * 10**9), ("1.5 GiB", 3 << 29), ("512mb", 512 * 10**6)])
def test_memory_is_read_with_its_unit(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "80 bananas", "0GB", "-1GB", "", "1e3GB"])
def test_memory_without_a_size_or_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="GB"):
        bytes_of(text)


def test_batches_that_do_not_split_are_refused() -> None:
    with pytest.raises(ConfigError, match="give --batch 9"):
        plan(10**9, devices=3)
