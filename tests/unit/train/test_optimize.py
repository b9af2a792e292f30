import math

import numpy as np
import pytest
import torch
from tiny_run import tiny_model
from torch import nn

from formers.errors import ConfigError
from formers.train import Adafactor, AdamW, TrainSpec
from formers.train.optimize import decay_groups


def test_matrices_decay_and_vectors_do_not():
    model = tiny_model()
    decaying, resting = (group["params"] for group in decay_groups(model.named_parameters(), 0.1))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in resting} == {
        name for name, parameter in model.named_parameters() if parameter.dim() == 1
    }
    assert any("embedding.tokens" in names[id(parameter)] for parameter in decaying)
    assert len(decaying) + len(resting) == len(names)


def test_a_bias_of_any_shape_rests_and_a_frozen_parameter_is_left_out():
    table, frozen = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4), requires_grad=False)
    groups = decay_groups([("attention.content_bias", table), ("frozen", frozen)], 0.1)
    assert groups == [{"params": [table], "weight_decay": 0.0}]


def test_adamw_decays_by_the_rate_and_nothing_else_when_the_gradient_is_zero():
    layer = nn.Linear(3, 3)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = AdamW(learning_rate=0.5, weight_decay=0.1).build(layer)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), torch.full((3, 3), 0.95))
    torch.testing.assert_close(layer.bias.detach(), torch.ones(3))


def paper_adafactor(x, gradients, rho_limit=1e-2, eps1=1e-30, eps2=1e-3, clip=1.0):
    """Algorithm 4 of arXiv:1804.04235 with the relative step sizes of its section 9, for a matrix, in float64."""
    rows, columns = np.zeros(x.shape[0]), np.zeros(x.shape[1])
    for step, gradient in enumerate(gradients, 1):
        alpha = max(eps2, np.sqrt(np.mean(x**2))) * min(rho_limit, 1 / math.sqrt(step))
        beta = 1 - step**-0.8
        squared = gradient**2 + eps1
        rows = beta * rows + (1 - beta) * squared.sum(1)
        columns = beta * columns + (1 - beta) * squared.sum(0)
        update = gradient / np.sqrt(np.outer(rows, columns) / rows.sum())
        x = x - alpha * update / max(1.0, np.sqrt(np.mean(update**2)) / clip)
    return x


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_adafactor_takes_the_steps_of_the_paper_for_gradients_large_and_small(scale):
    chance = np.random.default_rng(0)
    start = chance.normal(size=(5, 7))
    gradients = [scale * chance.normal(size=(5, 7)) * chance.gamma(1.0, size=(5, 1)) for _ in range(8)]
    weight = nn.Parameter(torch.tensor(start))
    optimizer = Adafactor().build(nn.ParameterDict({"weight": weight}))
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor(paper_adafactor(start, gradients)), rtol=1e-6, atol=1e-9)


def test_adafactor_survives_rows_without_gradient():
    table = nn.Embedding(6, 4)
    before = table.weight.detach().clone()
    optimizer = Adafactor().build(table)
    for _ in range(3):
        table(torch.tensor([0, 2])).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.isfinite(table.weight).all()
    torch.testing.assert_close(table.weight.detach()[[1, 3, 4, 5]], before[[1, 3, 4, 5]])
    assert not torch.equal(table.weight.detach()[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(learning_rate=float("nan")),
        AdamW(eps=0.0),
        AdamW(weight_decay=-0.1),
        Adafactor(beta2_decay=0.1),
        Adafactor(eps=(0.0, 1e-3)),
        Adafactor(clip=0.5),
    ],
)
def test_an_optimiser_that_makes_no_sense_is_refused(optimizer):
    with pytest.raises(ConfigError, match=r"train\.optimizer: "):
        TrainSpec(steps=10, optimizer=optimizer).check()
