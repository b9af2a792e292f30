"""A model that carries a state is evaluated on streams: as if each part of the text were read at once."""

import math

import pytest
import torch
from tiny_task import TEXT
from torch.nn import functional as F

from formers import make
from formers.tasks import CausalStreams, evaluate_text, prepare
from formers.train import TrainSpec

SIZES = {"dim": 16, "depth": 2, "heads": 2, "hidden": 16, "segment": 8, "memory": 12, "dropout": 0.0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare([TEXT], tmp_path_factory.mktemp("prepared"), held_out=0.1)


@pytest.fixture(scope="module")
def model(prepared):
    torch.manual_seed(0)
    made = make("transformer_xl", vocab=prepared.tokenizer.vocab, **SIZES).build().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [8, 13])
@pytest.mark.parametrize("loss_chunk", [None, 5])
def test_each_part_is_read_as_if_at_once(prepared, model, batch, length, loss_chunk) -> None:
    tokens = [prepared.tokenizer.end, *prepared.held_out.tokens.tolist()]
    part, nats = math.ceil((len(tokens) - 1) / batch), 0.0
    for first in range(0, len(tokens) - 1, part):
        row = torch.tensor(tokens[first : first + part + 1])[None]
        with torch.no_grad():
            nats += F.cross_entropy(model(row[:, :-1]).logits[0], row[0, 1:], reduction="sum").item()
    found = evaluate_text(model, prepared.held_out, prepared.tokenizer, length, batch, loss_chunk=loss_chunk)
    assert found["tokens"] == len(tokens) - 1
    assert found["nats"] == pytest.approx(nats / found["tokens"], rel=1e-5)


def test_the_task_evaluates_so_too(prepared, model) -> None:
    spec = TrainSpec(steps=2, batch=2, length=8)
    expected = evaluate_text(model, prepared.held_out, prepared.tokenizer, 8, 2)
    assert CausalStreams(prepared, spec).evaluate(model) == expected
