"""How the tokens of a text become a fixed number of slots: by a learned matrix, by pooling, by a convolution.

B batch, N positions, S slots, M model width, H heads, D head width, W = length / slots positions in a window.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention.low_rank.laid import Laid
from formers.spec.core import Site, Spec


class Compressed(NamedTuple):
    """Inputs that were compressed before they were projected.

    x: (B, S, M). ones: (B or 1, S), what would have become of a 1 at every token: a bias goes into each slot as often.
    """

    x: Tensor
    ones: Tensor


class Compression(Spec):
    """A rule by which texts of up to `length` tokens become `slots` slots."""

    def faults(self, length: int, slots: int) -> Iterator[tuple[str, str]]:
        """What is wrong with these numbers under this rule, each with a mend."""
        return iter(())

    def build(self, site: Site, length: int, slots: int) -> "Compressor":
        """Built at a site with heads and head_dim."""
        raise NotImplementedError


class Compressor(nn.Module):
    """linear: every slot is a weighted sum of tokens, by the same weights for all channels and heads, so that inputs can be
    compressed before they are projected, which comes to the same and costs less: `inputs`. Else `heads`."""

    linear = False

    def inputs(self, x: Tensor, to: Laid) -> tuple[Compressed, Compressed]:
        """x (B, N, M), zeros where no token stands: what keys and what values are made of."""
        raise NotImplementedError

    def heads(self, k: Tensor, v: Tensor, to: Laid) -> tuple[Tensor, Tensor]:
        """k, v (B, H, N, D) -> (B, H, S, D) each; what stands where no token does is not read."""
        raise NotImplementedError

    def held(self, to: Laid) -> Tensor | None:
        """(B, S) bool: the slots that hold something of a token; None: all of them."""
        return None


class LinearSlots(Compression):
    """A learned matrix E of `slots` rows and a column for each position; position i always meets column i.

    share: "none", a matrix for keys and one for values in each head; "headwise", one for keys and one for values;
    "keys_values", one for both. For one matrix in all layers of a model there is `Layerwise`. They begin uniform, at
    Glorot's bound by 1 / sqrt(2), as in fairseq; the theorem's begin as N(0, 1 / slots).
    """

    share: Literal["none", "headwise", "keys_values"] = "headwise"

    def build(self, site: Site, length: int, slots: int) -> Compressor:
        return LinearCompressor(self, site, length, slots)


class LinearCompressor(Compressor):
    def __init__(self, spec: LinearSlots, site: Site, length: int, slots: int) -> None:
        super().__init__()
        self.linear, self.slots = spec.share != "none", slots
        matrices = {"none": 2 * site.heads, "headwise": 2, "keys_values": 1}[spec.share]
        self.weight = nn.Parameter(torch.empty(matrices * slots, length))
        bound = (3 / (slots + length)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def inputs(self, x: Tensor, to: Laid) -> tuple[Compressed, Compressed]:
        weight = self.weight[:, : to.length]
        ones = weight.sum(1)[None] if to.real is None else to.real.to(weight.dtype) @ weight.mT
        both = [Compressed(*t) for t in zip((weight @ x).split(self.slots, 1), ones.split(self.slots, 1), strict=True)]
        return both[0], both[-1]

    def heads(self, k: Tensor, v: Tensor, to: Laid) -> tuple[Tensor, Tensor]:
        by_keys, by_values = self.weight[:, : to.length].unflatten(0, (2, -1, self.slots))
        k, v = (t if to.real is None else t * to.real[:, None, :, None] for t in (k, v))
        return by_keys @ k, by_values @ v


class WindowedSlots(Compression):
    """Rules by which a slot stands for a window of length / slots positions. Shorter texts fill fewer slots, and nothing
    attends to a slot without a token."""

    def faults(self, length: int, slots: int) -> Iterator[tuple[str, str]]:
        if length % slots:
            what = f"{length} positions do not split into {slots} equal windows"
            yield what, f"length={-(-length // slots) * slots}"


class WindowCompressor(Compressor):
    def __init__(self, length: int, slots: int) -> None:
        super().__init__()
        self.window = length // slots

    def cut(self, x: Tensor) -> Tensor:
        """x (..., N, C) as windows (..., S, W, C), the last one filled up with zeros."""
        short = -x.shape[-2] % self.window
        return nn.functional.pad(x, (0, 0, 0, short)).unflatten(-2, (-1, self.window))

    def real(self, to: Laid, device: torch.device) -> Tensor:
        """(B or 1, S, W) bool: where tokens stand."""
        real = torch.ones(1, to.length, dtype=torch.bool, device=device) if to.real is None else to.real
        return self.cut(real[..., None])[..., 0]

    def held(self, to: Laid) -> Tensor | None:
        return None if to.real is None else self.real(to, to.real.device).any(-1)


class PooledSlots(WindowedSlots):
    """The mean, or the greatest number in each channel, of the tokens in each window; nothing is learned."""

    by: Literal["mean", "max"] = "mean"

    def build(self, site: Site, length: int, slots: int) -> Compressor:
        return MeanCompressor(length, slots) if self.by == "mean" else MaxCompressor(length, slots)


class MeanCompressor(WindowCompressor):
    linear = True

    def inputs(self, x: Tensor, to: Laid) -> tuple[Compressed, Compressed]:
        count = self.real(to, x.device).sum(-1)
        mean = self.cut(x).sum(-2) / count.clamp(min=1)[..., None].to(x.dtype)
        mixed = Compressed(mean, torch.ones_like(count, dtype=x.dtype))
        return mixed, mixed


class MaxCompressor(WindowCompressor):
    def heads(self, k: Tensor, v: Tensor, to: Laid) -> tuple[Tensor, Tensor]:
        missing = ~self.real(to, k.device)[:, None, ..., None]
        empty = missing.all(-2)
        largest = (self.cut(t).masked_fill(missing, float("-inf")).amax(-2) for t in (k, v))
        k, v = (t.masked_fill(empty, 0) for t in largest)
        return k, v


class ConvolvedSlots(WindowedSlots):
    """A convolution whose kernel and stride are a window: a learned weight for each position in it and each channel.

    share: whose kernels differ, as of `LinearSlots`. They begin as means. The paper does not say whether channels are
    mixed; here they are not, as no matrix E mixes them.
    """

    share: Literal["none", "headwise", "keys_values"] = "headwise"

    def build(self, site: Site, length: int, slots: int) -> Compressor:
        return ConvolutionCompressor(self, site, length, slots)


class ConvolutionCompressor(WindowCompressor):
    def __init__(self, spec: ConvolvedSlots, site: Site, length: int, slots: int) -> None:
        super().__init__(length, slots)
        kinds, heads = 1 if spec.share == "keys_values" else 2, site.heads if spec.share == "none" else 1
        shape = kinds, heads, 1, self.window, site.head_dim
        self.weight = nn.Parameter(torch.full(shape, 1 / self.window))

    def heads(self, k: Tensor, v: Tensor, to: Laid) -> tuple[Tensor, Tensor]:
        k, v = (t if to.real is None else t * to.real[:, None, :, None] for t in (k, v))
        return (self.cut(k) * self.weight[0]).sum(-2), (self.cut(v) * self.weight[-1]).sum(-2)
