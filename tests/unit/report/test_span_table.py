"""The table of learned spans: one row for each layer that has them."""

import io

import pytest
import torch
from rich.console import Console
from rich.table import Table

from formers import MEMBERS, make
from formers.report.cost import cost
from formers.report.parts import learns_spans, looks
from formers.report.span_table import span_table

SMALL = MEMBERS["adaptive_span"].small | {"span": 300}


def printed(table: Table) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_every_head_has_its_span_and_every_layer_what_it_saves() -> None:
    model = make("adaptive_span", **SMALL).build()
    for layer, shares in zip(model.stack.blocks, ([0.0, 0.1, 0.2, 1.0], [0.0] * 4), strict=True):
        layer.sublayers[0].spans.shares.data.copy_(torch.tensor(shares))
    _, first, second = printed(span_table(model, 600))
    assert first == ["0", "30", "60", "300", "300", "97.5", first[6], "blocks[0].sublayers[0]"]
    assert second[:6] == ["0", "0", "0", "0", "300", "0.0"]
    saved = [float(row[6].rstrip("%")) / 100 for row in (first, second)]
    usage = [block.sublayers[0].usage(600).saved for block in model.stack.blocks]
    assert saved == pytest.approx(usage, abs=0.006) and 0.2 < saved[0] < saved[1]


def test_a_dynamic_span_is_told_by_text_and_a_model_without_spans_by_nothing() -> None:
    row = printed(span_table(make("adaptive_span", **SMALL, dynamic=True).build(), 600))[1]
    assert row[:4] == ["told", "from", "each", "query;"] and row[-3:] == ["-", "-", "blocks[0].sublayers[0]"]
    gpt = make("gpt2", **MEMBERS["gpt2"].small)
    assert span_table(gpt.build(), 600) is None
    assert learns_spans(make("adaptive_span", **SMALL)) and not learns_spans(gpt)


def test_costs_and_patterns_are_those_of_the_longest_span() -> None:
    (look,) = looks(make("adaptive_span", **SMALL))
    assert repr(look.pattern) == "Causal() & Window(size=300)" and look.heads == 4 and not look.draws_pairs
    short, long = (cost(make("adaptive_span", **SMALL | {"span": span}), 100).total for span in (10, 100))
    assert short.operations < long.operations and short.state < long.state
    plain, dynamic = (cost(make("adaptive_span", **SMALL, dynamic=each), 100).total.last for each in (False, True))
    assert dynamic - plain == 2 * 2 * 32 * 4  # two layers that tell four spans of 32 numbers
