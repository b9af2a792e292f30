"""Many small images in one picture."""

import math
from pathlib import Path

import numpy as np

from formers.data.atomic import replacing
from formers.data.images.read import Pixels

GAP = 2  # pixels between images
BETWEEN = 255  # the intensity of the gap


def write_grid(path: Path, images: Pixels) -> None:
    """Write images (N, H, W, C) as a PNG of about as many rows as columns, or one alone as it is. Raises DataError where
    the file cannot be written."""
    from PIL import Image

    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), BETWEEN, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    with replacing(path) as (stream,):
        Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(stream, format="png")
