"""Images as rows of tokens: in which order the pixels come, and where each of them stands."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from formers.spec.core import Site, Spec, parts_within


class Canvas(Spec):
    """An image of `channels` tokens a pixel, channel by channel, and the order in which its pixels are generated.

    height, width: in pixels. block: None for raster order; else (height, width) of the blocks in which they are generated,
    block after block in raster order and within each in raster order, as the 2D local attention of Image Transformer has
    them (Parmar et al. 2018, arXiv:1802.05751). Blocks at the right and lower edges may be cut short.
    """

    height: int
    width: int
    channels: int = 1
    block: tuple[int, int] | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        shape = self.height, self.width, self.channels
        if min(shape) < 1:
            yield f"an image of {shape} rows, columns and channels has no pixel", "height=32, width=32, channels=3"
        if self.block is not None and min(self.block) < 1:
            yield f"blocks of {self.block} rows and columns have no pixel", "block=(8, 8)"

    @property
    def length(self) -> int:
        """How many tokens an image is."""
        return self.height * self.width * self.channels

    def tables(self, device: torch.device | None = None) -> "Tables":
        """Where each token of an image stands; worked out once."""
        return _tables(self, torch.device("cpu") if device is None else device)


class Tables(NamedTuple):
    """What is known of each token of an image, in the order of the sequence: (length,) int64 each.

    order: which number of the image it is, in raster order with the channels of a pixel side by side; place: the inverse,
    where in the sequence each number of the image comes. row, column, channel: of its pixel. top, left: the first row and
    column of its block. last: where in the sequence the last token of its block stands.
    """

    order: Tensor
    place: Tensor
    row: Tensor
    column: Tensor
    channel: Tensor
    top: Tensor
    left: Tensor
    last: Tensor


@functools.lru_cache(maxsize=32)
def _tables(canvas: Canvas, device: torch.device) -> Tables:
    height, width = canvas.block or (canvas.height, canvas.width)
    raster = torch.arange(canvas.length, device="cpu")  # whatever device models are being built on
    row, column = raster // canvas.channels // canvas.width, raster // canvas.channels % canvas.width
    across = -(-canvas.width // width)
    block = row // height * across + column // width
    order = block.argsort(stable=True)
    place = order.argsort()
    row, column, block = row[order], column[order], block[order]
    last = block.bincount().cumsum(0)[block] - 1
    tables = order, place, row, column, order % canvas.channels, row // height * height, column // width * width, last
    return Tables(*(table.to(device) for table in tables))


def canvases(spec: Spec) -> list[Canvas]:
    """All that parts of a model stand on, each once: of an encoder-decoder of images two, of other models of images one."""
    return list(dict.fromkeys(part for part in parts_within(spec) if isinstance(part, Canvas)))
