"""Random directions: how they lie, when they are drawn anew, what a checkpoint keeps, and what a call draws by itself."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from formers import KernelAttention, Positive, RandomFourier, make
from formers.attention.kernel.directions import Redrawn, gaussian, orthogonal
from formers.call import Call
from formers.model import Decoder
from formers.places import Places
from formers.spec import Site
from formers.train import TrainSpec
from formers.train.learning import Learner, Lessons
from formers.train.task import Batch, Loss, Size
from formers.train.update import Updater

SITE = Site(16, causal=True, heads=2, head_dim=8, path=(3, 1))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


@pytest.mark.parametrize("count", [5, 8, 20])
def test_orthogonal_directions_are_at_right_angles_in_blocks(count: int) -> None:
    rows = orthogonal((2, count, 8))
    for block in rows.split(8, 1):
        products = block @ block.mT
        torch.testing.assert_close(products, torch.diag_embed(products.diagonal(0, -2, -1)), atol=1e-4, rtol=0)
    torch.testing.assert_close(orthogonal((2, count, 8), "sqrt").norm(dim=-1), torch.full((2, count), 8**0.5))


def test_each_orthogonal_direction_by_itself_is_gaussian() -> None:
    first = orthogonal((20_000, 1, 4))[:, 0]
    torch.testing.assert_close(first.mean(0), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(first.T @ first / len(first), torch.eye(4), atol=0.05, rtol=0)
    torch.testing.assert_close(first.norm(dim=-1).std(), gaussian((20_000, 4)).norm(dim=-1).std(), atol=0.03, rtol=0)


def test_a_draw_depends_on_its_generator_alone() -> None:
    drawn = [orthogonal((2, 9, 8), chance=torch.Generator().manual_seed(7)) for _ in range(2)]
    torch.testing.assert_close(*drawn, rtol=0, atol=0)


def test_directions_are_drawn_anew_after_so_many_updates() -> None:
    layer = Redrawn(12, "chi", 3, SITE)
    assert isinstance(layer, Learner)
    stood = [layer.directions.clone()]
    for _ in range(7):
        layer.learn(torch.ones(()))
        stood.append(layer.directions.clone())
    changed = [not torch.equal(before, after) for before, after in pairwise(stood)]
    assert changed == [False, False, True, False, False, True, False]


def test_a_checkpoint_goes_on_with_the_same_draws() -> None:
    layer, other = Redrawn(12, "chi", 2, SITE), Redrawn(12, "chi", 2, SITE)
    layer.learn(torch.ones(()))
    assert not torch.equal(layer.directions, other.directions)
    other.load_state_dict(layer.state_dict())
    torch.randn(5)  # what torch's own generator has come to does not matter
    for one in (layer, other):
        one.learn(torch.ones(()))
    torch.testing.assert_close(layer.directions, other.directions, rtol=0, atol=0)


def test_processes_draw_alike_whatever_each_of_them_saw() -> None:
    layers = [Redrawn(12, None, 1, SITE) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[0].learn(torch.tensor(2.0))
    layers[1].learn(torch.tensor(5.0))
    torch.testing.assert_close(layers[0].directions, layers[1].directions, rtol=0, atol=0)


@pytest.mark.parametrize("redraw", [None, 1])
def test_only_training_tells_of_updates(redraw: int | None) -> None:
    layer = KernelAttention(2, features=Positive(12, redraw=redraw)).build(Site(16, causal=True))
    call, x = Call(Places.run(0, 4)), torch.randn(1, 4, 16)
    assert bool(layer.train()(x, call).records) == (redraw is not None)
    assert not layer.eval()(x, call).records


class Bytes:
    """A `Task` of random tokens."""

    data: dict[str, str] = {}  # noqa: RUF012

    def batch(self, step: int) -> Batch:
        return {"tokens": torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(step))}

    def size(self, batch: Batch) -> Size:
        return Size(18, 16)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        tokens: Tensor = batch["tokens"]
        out = model(tokens[:, :-1])
        nats = nn.functional.cross_entropy(out.logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        return Loss(nats, out.losses, out.records)


def test_training_redraws_by_its_updates() -> None:
    spec: Decoder = make("performer", vocab=40, dim=16, depth=2, heads=2, hidden=16, features=8, redraw=2)
    model, training = spec.build().train(), TrainSpec(4, 2, 8, accumulation=2)
    update = Updater(model, Bytes(), training, training.optimizer.build(model), torch.device("cpu"))
    layers = [module for module in model.modules() if isinstance(module, Redrawn)]
    stood = [layer.directions.clone() for layer in layers]
    update(1)
    assert all(torch.equal(layer.directions, before) for layer, before in zip(layers, stood, strict=True))
    update(2)
    assert not any(torch.equal(layer.directions, before) for layer, before in zip(layers, stood, strict=True))
    assert [int(layer.updates) for layer in layers] == [2, 2]
    assert not torch.equal(layers[0].directions, layers[1].directions)
    assert not Lessons(model)._seen


def test_a_pool_is_drawn_from_in_training_and_stands_still_in_evaluation() -> None:
    layer = RandomFourier(8, pool=20).build(SITE)
    seeds = [Call(Places.run(0, 1), seed=seed) for seed in range(6)]
    taken = [layer.train().directions(call) for call in seeds]
    assert len({float(t.detach().sum()) for t in taken}) > 1
    torch.testing.assert_close(layer.directions(seeds[3]), taken[3], rtol=0, atol=0)
    for call in seeds:
        torch.testing.assert_close(layer.eval().directions(call), layer.drawn.pool[0], rtol=0, atol=0)
