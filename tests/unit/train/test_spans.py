"""Spans while a model trains: kept in bounds by every update, saved with the run, and told at every evaluation."""

import pytest
import torch
from test_resume import StoppedAt
from tiny_run import tiny_spec

from formers import MEMBERS, make
from formers.train import AdamW, load_model, train
from formers.train.metrics import read_metrics
from formers.train.update import Updater

SPEC = make("adaptive_span", **MEMBERS["adaptive_span"].small | {"vocab": 257, "span": 70, "begin": 0.02, "ramp": 9})


def built():
    torch.manual_seed(0)
    return SPEC.build()


def shares(model):
    return torch.stack([block.sublayers[0].spans.shares.detach() for block in model.stack.blocks])


@pytest.mark.parametrize("penalty", [0.0, 1e3])
def test_an_update_leaves_spans_within_bounds(penalty, task):
    torch.manual_seed(0)
    pushed = SPEC.blocks[0].sublayers[0].replace(penalty=penalty)
    model = SPEC.replace(blocks=(SPEC.blocks[0].replace(sublayers=(pushed, SPEC.blocks[0].sublayers[1])),)).build()
    spec = tiny_spec(optimizer=AdamW(0.5), accumulation=2)
    update = Updater(model.train(), task(spec), spec, spec.optimizer.build(model), torch.device("cpu"))
    moved = []
    for step in range(1, 5):
        named = update(step).named
        moved.append(shares(model))
        assert ((moved[-1] >= 0) & (moved[-1] <= 1)).all()
        assert list(named) == ["span"]
    assert (moved[-1] == 0).all() if penalty else len(torch.cat(moved).unique()) > 2


def test_a_run_goes_on_exactly_and_tells_its_spans(prepared, task, run, tmp_path, quiet):
    spec = tiny_spec(optimizer=AdamW(0.05))
    outcome = train(built(), task(spec), spec, tmp_path / "whole", console=quiet)
    assert not train(built(), StoppedAt(prepared, spec), spec, run, console=quiet).finished
    rest = train(built(), task(spec), spec, run, console=quiet, resume=True)
    assert rest.held_out == outcome.held_out
    found = shares(load_model(run))
    torch.testing.assert_close(found, shares(load_model(tmp_path / "whole")), rtol=0, atol=0)
    assert len(found.unique()) > 2
    assert outcome.held_out["mean_span"] == pytest.approx(70 * found.mean().item(), rel=1e-4)
    assert outcome.held_out["saved_scores"] == 0  # rows of 16 tokens
    *_, trained, held_out = read_metrics(run / "metrics.jsonl")
    assert held_out["mean_span"] == outcome.held_out["mean_span"]
    assert trained["losses"]["span"] == pytest.approx(2 * 2e-6 * held_out["mean_span"], rel=0.5)
