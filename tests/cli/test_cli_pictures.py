"""Models of images: trained, evaluated, resumed, and made to paint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import Cli
from PIL import Image

from formers.cli import main
from formers.train import Run

TINY = ["dim=16", "depth=1", "heads=2", "hidden=16", "dropout=0.0", "levels=4"]
BLOCKED = ["block=(2, 3)", "memory=(2, 1)"]
QUICK = ["--steps", "2", "--batch", "3", "--warm-up", "1"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images of 6 x 4 pixels: stripes of two colours."""
    path = tmp_path_factory.mktemp("images") / "stripes.npz"
    chance = np.random.default_rng(0)
    np.savez(path, images=np.repeat(chance.choice([0, 255], (30, 6, 1)), 4, 2).astype(np.uint8))
    return path


def trained(archive: Path, folder: Path, *words: str) -> Path:
    assert main(["train", *words, *TINY, *BLOCKED, "--data", str(archive), "--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    return trained(archive, tmp_path_factory.mktemp("painter") / "run", "image_transformer")


@pytest.fixture(scope="module")
def completing(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    return trained(archive, tmp_path_factory.mktemp("completing") / "run", "image_completion", "given=(3, 4)")


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    return trained(archive, tmp_path_factory.mktemp("enlarging") / "run", "image_completion", "given=(3, 2)")


@pytest.fixture
def stripe(tmp_path: Path) -> Path:
    """An image of the size that the runs were trained on, whose levels survive the way there and back."""
    path = tmp_path / "stripe.png"
    Image.fromarray(np.repeat(np.array([[0], [255], [85], [255], [0], [170]], np.uint8), 4, 1)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_a_run_takes_its_size_from_the_images(painter: Path) -> None:
    spec = json.loads((painter / "spec.json").read_text())
    canvas = spec["embedding"]["position"]["canvas"]
    assert (canvas["height"], canvas["width"], canvas.get("channels", 1)) == (6, 4, 1)
    rows = [json.loads(line) for line in (painter / "metrics.jsonl").read_text().splitlines()]
    held_out = [row for row in rows if row["kind"] == "held_out"][-1]
    assert held_out["bits_per_dim"] == pytest.approx(held_out["nats"] / np.log(2))
    assert held_out["images"] == 1 and held_out["tokens"] == 24


def test_what_was_held_out_is_evaluated_and_other_images_too(cli: Cli, painter: Path, archive: Path) -> None:
    code, out, _ = cli("eval", painter)
    assert code == 0 and "bits per dimension" in out and "images" in out
    said = cli("eval", painter, "--data", archive)
    assert said.code == 0 and "720" in said.out and said.out != out


def test_resuming_goes_on_with_its_own_images(cli: Cli, painter: Path, tmp_path: Path) -> None:
    shutil.copytree(painter, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    shutil.rmtree(Run(tmp_path / "run").checkpoint(2))
    assert cli("train", "--resume", "--out", tmp_path / "run").code == 0

    def losses(text: str) -> list[float]:
        return [row["loss"] for row in map(json.loads, text.splitlines()) if row["kind"] == "train"]

    assert losses((tmp_path / "run" / "metrics.jsonl").read_text())[-2:] == losses(before)


def test_images_are_painted_side_by_side(cli: Cli, painter: Path, tmp_path: Path) -> None:
    said = cli("generate", painter, "--picture", tmp_path / "a.png", "--count", 5, "--seed", 3)
    assert said.code == 0 and "5 images of 6 x 4 pixels are in" in said.out
    assert pixels(tmp_path / "a.png").shape == (14, 16)
    cli("generate", painter, "--picture", tmp_path / "b.png", "--count", 1, "--seed", 3)
    one = pixels(tmp_path / "b.png")
    np.testing.assert_array_equal(one, pixels(tmp_path / "a.png")[:6, :4])  # an image does not depend on its neighbours
    assert set(np.unique(one)) <= {0, 85, 170, 255}


def test_the_upper_half_of_a_prompt_stays(cli: Cli, painter: Path, tmp_path: Path, stripe: Path) -> None:
    assert cli("generate", painter, "--picture", tmp_path / "a.png", "--count", 1, "--prompt", stripe).code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[:2], pixels(stripe)[:2])  # of blocks, two rows are above


def test_a_completed_image_has_the_part_that_was_given(
    cli: Cli, completing: Path, tmp_path: Path, stripe: Path
) -> None:
    said = cli("generate", completing, "--picture", tmp_path / "a.png", "--count", 1, "--prompt", stripe)
    assert said.code == 0
    assert pixels(tmp_path / "a.png").shape == (6, 4)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[:3], pixels(stripe)[:3])
    Image.fromarray(pixels(stripe)[:3]).save(tmp_path / "upper.png")
    again = cli(
        "generate", completing, "--picture", tmp_path / "b.png", "--count", 1, "--prompt", tmp_path / "upper.png"
    )
    assert again.code == 0
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_an_image_is_painted_from_a_smaller_one(cli: Cli, enlarging: Path, tmp_path: Path, stripe: Path) -> None:
    with Image.open(stripe) as whole:
        whole.resize((2, 3), Image.Resampling.BOX).save(tmp_path / "small.png")
    prompts = ["--prompt", tmp_path / "small.png", "--prompt", stripe]
    assert cli("generate", enlarging, "--picture", tmp_path / "a.png", "--count", 2, *prompts).code == 0
    assert pixels(tmp_path / "a.png").shape == (14, 10)


def test_a_folder_of_colour_images_is_learned_and_painted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    chance = np.random.default_rng(1)
    for number in range(4):
        Image.fromarray(chance.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    words = ["block=6", "memory=18", "--data", tmp_path / "photos", "--out", tmp_path / "run"]
    said = cli("train", "image_transformer", *TINY, *words, *QUICK)
    assert said.code == 0 and "3 images to learn from, 1 held out" in said.out
    assert cli("generate", tmp_path / "run", "--picture", tmp_path / "a.png", "--count", 2).code == 0
    assert pixels(tmp_path / "a.png").shape == (4, 14, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["height=8"], "the model is of images of 8 x 4 pixels with 1 channels, and these have 6 x 4 with 1: height=6"),
        (["--length", "7"], "rows are whole images, of 24 tokens, not 7: leave out --length"),
        (["--tokenizer", "bytes"], "--tokenizer bytes is for text"),
        (["block=3"], "block=3 and memory=(2, 1) are not of one kind"),
        (["levels=300"], "a channel has 2 to 256 intensities, not 300"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(
    cli: Cli, archive: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    named = [word for word in words if "=" in word and not word.startswith("-")]
    options = [word for word in words if word not in named]
    train = ["train", "image_transformer", *TINY, *BLOCKED, *named, "--data", archive, "--out", tmp_path / "run"]
    answer = cli(*train, *QUICK, *options)
    assert answer.code == 1 and said in answer.err and not (tmp_path / "run").exists()


def test_text_is_no_image_and_a_painter_writes_no_text(cli: Cli, text: Path, trained: Path, painter: Path) -> None:
    out = ["--out", "nowhere"]
    assert "holds no images that can be read" in cli("train", "image_transformer", "--data", text, *out, *QUICK).err
    assert "is a model of images and writes no text: give --picture" in cli("generate", painter).err
    assert "is no model that writes images" in cli("generate", trained, "--picture", "a.png").err


def test_what_cannot_be_painted_is_refused(cli: Cli, painter: Path, completing: Path, tmp_path: Path) -> None:
    picture = ["--picture", tmp_path / "a.png"]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "odd.png")
    for words, said in (
        ([painter, "--count", 0], "a picture of 0 images shows nothing"),
        ([painter, "--stop", "x"], "--stop is for text"),
        ([painter, "--repetition-penalty", 1.2], "a repetition penalty"),
        (
            [painter, "--prompt", tmp_path / "odd.png"],
            "has 5 x 5 pixels with 1 channels, and the model begins from 6 x 4",
        ),
        ([completing], "paints an image from its upper part; give it by --prompt"),
        ([completing, "--prompt", tmp_path / "none.png"], "cannot read"),
    ):
        answer = cli("generate", *words, *picture)
        assert answer.code == 1 and said in answer.err, answer.err
    assert not (tmp_path / "a.png").exists()
