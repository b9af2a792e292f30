"""Positions of pixels: where in the image a token stands, by its row and by its column and channel."""

from collections.abc import Iterator

import torch
from torch import Tensor, cat

from formers.canvas import Canvas
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AbsolutePosition, refuse_past_end, sinusoid
from formers.spec.core import Site


class Coordinates(AbsolutePosition):
    """dim / 2 sinusoids of the pixel's row, and dim / 2 of its column times channels plus its channel.

    Image Transformer, Parmar et al. 2018, arXiv:1802.05751, section 3.1. A place stands for the token that is predicted
    there: the first reads nothing yet, and an image of n tokens is read as n inputs.
    """

    canvas: Canvas

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.dim % 4:
            what = f"sines and cosines of two coordinates come in fours, but dim is {site.dim}"
            yield what, f"dim={site.dim + 4 - site.dim % 4}"

    @property
    def max_length(self) -> int:
        return self.canvas.length

    def build(self, site: Site) -> AbsoluteLayer:
        return CoordinatesLayer(self.canvas, site.dim)


class CoordinatesLayer(AbsoluteLayer):
    def __init__(self, canvas: Canvas, dim: int) -> None:
        super().__init__()
        self.canvas, self.dim = canvas, dim

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.canvas.length)
        at, pos = self.canvas.tables(places.device), places.pos.clamp(max=self.canvas.length - 1)
        across = at.column * self.canvas.channels + at.channel
        return cat([sinusoid(axis[pos], self.dim // 2, "interleaved", dtype) for axis in (at.row, across)], -1)
