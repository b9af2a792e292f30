"""Features beside those of performer-pytorch, with its directions."""

import pytest
import torch

from formers import Positive, ReLUKernel
from formers.call import Call
from formers.places import Places
from formers.spec import Site

published = pytest.importorskip("performer_pytorch.performer_pytorch")
SITE = Site(16, heads=2, head_dim=8)
CALL = Call(Places.run(0, 1))


def same_directions(spec: Positive | ReLUKernel) -> tuple[torch.nn.Module, torch.Tensor]:
    """Ours, all heads with the directions of one matrix, and that matrix."""
    torch.manual_seed(0)
    directions = published.gaussian_orthogonal_random_matrix(spec.features, 8).double()
    layer = spec.build(SITE).double()
    layer.drawn.directions.copy_(directions.expand(2, -1, -1))
    return layer, directions


def test_positive_features_are_those_of_the_softmax_kernel() -> None:
    layer, directions = same_directions(Positive(20))
    x = 3 * torch.randn(2, 2, 11, 8, dtype=torch.float64)
    phi, peak = layer(x, layer.directions(CALL))
    ours = phi * peak.exp()[..., None]
    for query in (True, False):
        theirs = published.softmax_kernel(x, projection_matrix=directions, is_query=query, eps=0.0)
        along = 8**-0.25 * x @ directions.mT
        factor = along.amax((-1,) if query else (-1, -2), keepdim=True).exp() * 20**0.5  # what they divide by
        torch.testing.assert_close(ours, theirs * factor)


def test_the_relu_kernel_is_their_generalised_kernel() -> None:
    layer, directions = same_directions(ReLUKernel(20))
    x = torch.randn(2, 2, 11, 8, dtype=torch.float64)
    theirs = published.generalized_kernel(x, projection_matrix=directions)
    torch.testing.assert_close(layer(x, layer.directions(CALL)).phi, theirs)
