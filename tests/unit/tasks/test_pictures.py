"""The task of images: what a batch holds, how often each image comes, and what bits per dimension are."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from formers import ConfigError, DataError, make
from formers.data.images import Images
from formers.tasks.pictures import Pictures, PreparedImages, evaluate_images, open_images, prepare_images
from formers.train import TrainSpec

SMALL = {"height": 4, "width": 4, "channels": 1, "levels": 4, "dim": 16, "depth": 1, "heads": 2, "hidden": 16}
NEAR = {"block": (2, 2), "memory": (2, 1), "dropout": 0.0}
SPEC = TrainSpec(1, batch=5, length=16, seed=3)


def images(count: int = 12) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)


def task(name: str = "image_transformer", **changes: Any) -> Pictures:
    prepared = PreparedImages(images(), images(3), {"train": "a"})
    return Pictures(prepared, SPEC, make(name, **(SMALL | NEAR | changes)))


def test_an_epoch_has_every_image_once() -> None:
    rows = torch.cat([task().batch(step)["targets"] for step in range(1, 13)])  # five epochs of twelve images
    for epoch in rows.split(12):
        assert len(epoch.unique(dim=0)) == 12
    assert not torch.equal(rows[:12], rows[12:24])
    torch.testing.assert_close(task().batch(7)["inputs"], task().batch(7)["inputs"])


def test_sizes_count_what_is_read_and_what_is_written() -> None:
    assert task().size(task().batch(1)) == (80, 80)
    completion = task("image_completion", given=(1, 4))
    assert completion.size(completion.batch(1)) == (5 * 12 + 5 * 4, 5 * 12)


@pytest.mark.parametrize(("name", "changes"), [("image_transformer", {}), ("image_completion", {"given": (2, 2)})])
def test_bits_of_a_model_that_knows_nothing_are_those_of_the_levels(name: str, changes: dict[str, Any]) -> None:
    model = make(name, **(SMALL | NEAR | changes)).build().eval()
    with torch.no_grad():
        (model.target if hasattr(model, "target") else model).head.proj.weight.zero_()
    found = evaluate_images(model, images(), SPEC)
    assert found["bits_per_dim"] == pytest.approx(2.0, abs=1e-5) and found["nats"] == pytest.approx(
        2 * math.log(2), abs=1e-5
    )
    assert (found["tokens"], found["images"]) == (12 * 16, 12)
    assert evaluate_images(model, images(), SPEC, limit=40)["images"] == 2
    assert evaluate_images(model, images(), SPEC, limit=1)["images"] == 1


@pytest.mark.parametrize(("name", "changes"), [("image_transformer", {}), ("image_completion", {"given": (2, 4)})])
def test_a_model_learns_one_image(name: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    pictures = task(name, **changes)
    model = make(name, **(SMALL | NEAR | changes)).build()
    optimizer, batch = torch.optim.Adam(model.parameters(), 1e-2), {k: v[:1] for k, v in pictures.batch(1).items()}
    for _ in range(60):
        loss = pictures.loss(model, batch).nats
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 < batch["targets"].numel() * math.log(4)


def test_prepared_images_are_found_again(tmp_path: Path) -> None:
    made = prepare_images(Images(images()), tmp_path)
    again = open_images(tmp_path)
    assert made.fingerprints == again.fingerprints and set(made.fingerprints) == {"train", "held_out"}
    np.testing.assert_array_equal(made.train, again.train)
    assert len(again.train) + len(again.held_out) == 12 and again.shape == (4, 4, 1)
    (tmp_path / "train.npy").write_bytes(b"")
    with pytest.raises(DataError, match="the run does not know its images"):
        open_images(tmp_path)


def test_a_model_of_other_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="a model of other images"):
        task().require(make("image_transformer", **(SMALL | NEAR | {"levels": 8})))
    with pytest.raises(ConfigError, match="of 5 x 4 pixels"):
        task(height=5).require(make("image_transformer", **(SMALL | NEAR | {"height": 5})))
