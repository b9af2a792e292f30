"""What the embedding and the head of a Decision Transformer cost."""

import pytest

from formers import make
from formers.control.spaces import Choices, Numbers
from formers.report.cost import cost


def test_a_third_of_the_tokens_is_of_each_kind() -> None:
    spec = make("decision_transformer", observation=Numbers(5), action=Choices(7), dim=16, depth=1, horizon=40)
    told = cost(spec, 60)
    parts = {part.name: part.price for part in told.parts}
    embedding, head = parts["StepEmbedding"], parts["ActionHead"]
    assert embedding.operations == pytest.approx(2 * 16 * (1 + 5) / 3) and head.operations == pytest.approx(
        2 * 16 * 7 / 3
    )
    assert embedding.parameters == 16 * (1 + 1 + 5 + 1 + 7 + 40 + 2) and head.parameters == 17 * 7
    assert embedding.weights == 4 * 16 * (1 + 1 + 5 + 1 + 1 + 1 + 2)
    assert told.total.parameters == sum(parameter.numel() for parameter in spec.build().parameters())
