"""What a model of images reads and writes of each: tokens on its canvases, and images of tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formers.canvas import Canvas, canvases
from formers.data.images import Pixels
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError, DataError
from formers.model import Decoder
from formers.spec.core import Spec

TOP = 255  # the highest intensity


@dataclass(frozen=True)
class Frame:
    """levels: intensities of a channel, evenly from black to white; every other is taken for the nearest of them. written:
    the canvas that the model writes. given: the canvas that an encoder reads, or None. It is the upper part of the image
    where it is as wide as what is written, else the whole image made smaller.
    """

    levels: int
    written: Canvas
    given: Canvas | None = None

    @classmethod
    def of(cls, spec: Spec) -> "Frame":
        """Of a model. Raises ConfigError for one that is not of images."""
        model: Any = spec
        paired = isinstance(spec, EncoderDecoder)
        if not isinstance(spec, (Decoder, EncoderDecoder)):
            raise ConfigError(f"{model.name} is no model that writes images: it has no decoder")
        written, given = _canvas(model.target if paired else model), _canvas(model.source) if paired else None
        frame = cls(model.vocab, written, given)
        frame._check()
        return frame

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a whole image."""
        above = self.given.height if self.given is not None and self.completes else 0
        return above + self.written.height, self.written.width, self.written.channels

    @property
    def completes(self) -> bool:
        """Whether what is written stands below what is given."""
        return self.given is not None and self.given.width == self.written.width

    def require(self, shape: tuple[int, int, int]) -> None:
        """Raise ConfigError unless images of that shape are what the model reads and writes."""
        if shape != self.shape:
            (h, w, c), (height, width, channels) = self.shape, shape
            what = (
                f"the model is of images of {h} x {w} pixels with {c} channels, and these have {height} x {width} with"
            )
            raise ConfigError(f"{what} {channels}: height={height} width={width} channels={channels}")

    def targets(self, images: Pixels) -> Tensor:
        """What is written of images (N, H, W, C): (N, written.length) int64, in the order of generation."""
        return self._tokens(images[:, -self.written.height :], self.written)

    def sources(self, images: Pixels) -> Tensor:
        """What an encoder is given of images (N, H, W, C): (N, given.length) int64."""
        assert self.given is not None
        if self.completes:
            return self.given_as_is(images[:, : self.given.height])
        return self.given_as_is(smaller(images, self.given.height, self.given.width))

    def given_as_is(self, images: Pixels) -> Tensor:
        """The same of images (N, H, W, C) that show just what an encoder is given."""
        assert self.given is not None
        return self._tokens(images, self.given)

    @property
    def upper_half(self) -> int:
        """How many tokens are written before the first that is of the lower half."""
        return int((self.written.tables().row >= self.written.height // 2).nonzero()[0])

    def images(self, tokens: Tensor, sources: Tensor | None = None) -> Pixels:
        """Whole images (N, H, W, C) of what was written, below what was given."""
        below = self._pixels(tokens, self.written)
        if sources is None or self.given is None or not self.completes:
            return below
        return np.concatenate([self._pixels(sources, self.given), below], 1)

    def _tokens(self, images: Pixels, canvas: Canvas) -> Tensor:
        levels = np.rint(images.reshape(len(images), -1) * ((self.levels - 1) / TOP)).astype(np.int64)
        return torch.from_numpy(levels)[:, canvas.tables().order]

    def _pixels(self, tokens: Tensor, canvas: Canvas) -> Pixels:
        levels = tokens.cpu()[:, canvas.tables().place].numpy()
        pixels = np.rint(levels * (TOP / (self.levels - 1))).astype(np.uint8)
        return pixels.reshape(-1, canvas.height, canvas.width, canvas.channels)

    def _check(self) -> None:
        if not 2 <= self.levels <= TOP + 1:
            raise ConfigError(f"a channel has 2 to {TOP + 1} intensities, not {self.levels}: levels={TOP + 1}")
        given, written = self.given, self.written
        if given is not None and given.channels != written.channels:
            raise ConfigError(
                f"{given.channels} channels are given and {written.channels} are written; make them equal"
            )
        if given is None or self.completes:
            return
        factors = written.height / given.height, written.width / given.width
        if factors[0] != factors[1] or factors[0] % 1:
            what = f"{written.height} x {written.width} pixels are not made of {given.height} x {given.width} by one factor"
            raise ConfigError(f"{what}: given=({written.height // 2}, {written.width // 2})")


def _canvas(side: Any) -> Canvas:
    """The one that all parts of a side stand on."""
    found = canvases(side)
    if not found:
        raise ConfigError(f"{side.name} is no model that writes images: its tokens stand on no Canvas")
    if len(found) > 1:
        what = f"the parts of {side.name} stand on {len(found)} different images, {found[0]!r} and {found[1]!r}"
        raise ConfigError(f"{what}: give all of them one Canvas")
    return found[0]


def smaller(images: Pixels, height: int, width: int) -> Pixels:
    """Images (N, H, W, C) of which each pixel is the mean of H / height x W / width. Raises DataError for other sizes."""
    count, tall, wide, channels = images.shape
    if tall % height or wide % width:
        raise DataError(f"images of {tall} x {wide} pixels cannot be made {height} x {width} by whole factors")
    parts = images.reshape(count, height, tall // height, width, wide // width, channels)
    return np.rint(parts.mean((2, 4))).astype(np.uint8)
