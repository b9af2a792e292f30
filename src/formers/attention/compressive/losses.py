"""The two losses that train a compression, and nothing else: all that they read is taken as given."""

import torch
from torch import Tensor, nn

from formers.attention.compressive.compression import CompressionLayer
from formers.attention.oracle import attend_dense
from formers.attention.project import ProjectionLayer
from formers.attention.request import for_each
from formers.memory import Project


class AutoEncoding(nn.Module):
    """What was compressed can be made again by a transposed convolution."""

    def __init__(self, rate: int, dim: int) -> None:
        super().__init__()
        self.restore = nn.ConvTranspose1d(dim, dim, rate, stride=rate)

    def forward(self, compress: CompressionLayer, leaving: Tensor, heard: Tensor, project: Project) -> Tensor:
        """leaving (B, n, M) -> (B,), the mean square of what is lost."""
        leaving = leaving.detach()
        return (self.restore(compress(leaving).mT).mT - leaving).square().mean((1, 2))


class AttentionReconstruction(nn.Module):
    """Attention by content alone reads the same from the compressed vectors as from those that they are made of."""

    def forward(self, compress: CompressionLayer, leaving: Tensor, heard: Tensor, project: Project) -> Tensor:
        """heard (B, n, M) reads leaving (B, n, M) -> (B,), the mean square of the difference."""
        heard, leaving = heard.detach(), leaving.detach()
        read = _Reading(project.projection)
        fixed = {name: weight.detach() for name, weight in read.named_parameters()}
        with torch.no_grad():
            wanted = read(heard, leaving)
        found: Tensor = torch.func.functional_call(read, fixed, (heard, compress(leaving)))
        return (found - wanted).square().mean((1, 2, 3))


class _Reading(nn.Module):
    """Attention whose weights can be taken as given."""

    def __init__(self, projection: ProjectionLayer) -> None:
        super().__init__()
        self.projection = projection

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, T, M) reads memory (B, n, M): (B, H, T, D)."""
        q = self.projection.queries(x)
        k, v = (for_each(q, t) for t in self.projection.keys_values(memory))
        return attend_dense(q, k, v, torch.ones(1, dtype=torch.bool, device=q.device))
