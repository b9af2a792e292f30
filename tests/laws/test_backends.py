"""Each backend equals the tile executor wherever it gives no reason not to run."""

import pytest
import torch
from subjects import CAUSAL_ONLY, PATTERNS, RELATIVE

from formers import Causal, Everything, NoPosition
from formers.attention.backends import BACKENDS, Sdpa, TileExecutor
from formers.attention.oracle import attend_dense
from formers.attention.request import Request
from formers.places import Memo, Places, keys, queries
from formers.spec import Site

POSITIONS = {"none": NoPosition()} | RELATIVE | CAUSAL_ONLY
SHAPES = {
    "whole": (Places.run(0, 19), Places.run(0, 19)),
    "offset": (Places.run(7, 19), Places.run(7, 19)),
    "chunk": (Places.run(12, 7), Places.run(0, 19)),
    "step": (Places.run(18, 1), Places.run(0, 19)),
    "ragged": (
        Places(torch.tensor([[3, 4, 0], [7, 0, 8]]), torch.tensor([[True, True, False], [True, False, True]])),
        Places(torch.arange(9)[None].expand(2, -1), torch.arange(9)[None] < torch.tensor([[5], [9]])),
    ),
}


def request(position: str, pattern, shape: str, kv_heads: int = 4) -> Request:
    at, to = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, at.length, 8, generator=generator)
    k, v = (torch.randn(2, kv_heads, to.length, 8, generator=generator) for _ in range(2))
    torch.manual_seed(3)
    layer = POSITIONS[position].build(Site(dim=32, causal=True, heads=4, head_dim=8))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return Request(q, k, v, at, to, pattern, layer, 8**-0.5, 0.0, Memo())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pattern", [Causal(), Everything(), *PATTERNS.values()], ids=repr)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_backends_agree(position: str, pattern, shape: str, kv_heads: int) -> None:
    asked = request(position, pattern, shape, kv_heads)
    wanted = TileExecutor().run(asked)
    ran = [backend for backend in BACKENDS if backend.refuses(asked) is None]
    assert ran[-1].name == "tiles"
    for backend in ran:
        torch.testing.assert_close(backend.run(asked), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tile_executor_equals_the_oracle(shape: str) -> None:
    asked = request("none", Causal(), shape)
    mask = Causal().visible(queries(asked.at), keys(asked.to), torch.arange(4)[:, None, None])
    mask = mask if asked.to.real is None else mask & asked.to.real[:, None, None, :]
    torch.testing.assert_close(TileExecutor().run(asked), attend_dense(asked.q, asked.k, asked.v, mask))


def test_a_backend_that_refuses_says_why() -> None:
    assert "DistanceAware" in str(Sdpa().refuses(request("distance-aware", Causal(), "whole")))
    assert Sdpa().refuses(request("rotary", Causal(), "whole")) is None
