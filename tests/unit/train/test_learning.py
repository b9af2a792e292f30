"""What layers learn by rules of their own: once an update, from all that it saw, and nothing else."""

from typing import Any

import pytest
import torch
from test_resume import StoppedAt, told
from tiny_run import tiny_spec
from torch import nn

from formers import (
    MLP,
    Attention,
    Block,
    Causal,
    CrossAttention,
    Decoder,
    Embedding,
    Encoder,
    EncoderDecoder,
    SelfLast,
    SharedQK,
    Sinusoidal,
    Untied,
    Window,
    stack,
)
from formers.attention.centroids import SLIVER
from formers.attention.routing import Routing
from formers.parallel import Parallel
from formers.reversible import Reversible
from formers.tasks import Causal as CausalTask
from formers.train import train
from formers.train.learning import Learner, Lessons
from formers.train.update import Updater

DIM, VOCAB = 16, 257
CPU = torch.device("cpu")


def routed(**changes: Any) -> Attention:
    select = Routing(4, 6, decay=0.9).replace(**changes)
    return Attention(2, head_dim=8, select=select, projection=SharedQK(), position=SelfLast(), scale=1.0)


BLOCK = Block((Parallel((Attention(2, head_dim=8, pattern=Causal() & Window(6)), routed())), MLP(24)))
SPEC = Decoder("routed", VOCAB, DIM, stack(BLOCK, times=2), Embedding(Sinusoidal(), dropout=0.1))
REVERSIBLE = Decoder("routed", VOCAB, DIM, (Reversible(stack(BLOCK, times=2)),), head=Untied())


def built(spec: Any = SPEC, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spec.build()


def learners(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, Learner)]


def updater(model: nn.Module, task: Any, **changes: Any) -> Updater:
    spec = tiny_spec(**changes)
    model.train()
    return Updater(model, task(spec), spec, spec.optimizer.build(model), CPU)


@pytest.mark.parametrize("spec", [SPEC, REVERSIBLE], ids=["plain", "reversible"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_update_moves_the_centroids_by_all_that_it_saw_once(spec, accumulation, task):
    model, batch = built(spec), tiny_spec(accumulation=accumulation)
    updater(model, task, accumulation=accumulation)(1)
    found = learners(model)
    assert len(found) == 2
    for learner in found:
        torch.testing.assert_close(
            learner.counts.sum(-1), torch.full((2,), 0.9 * 4 * SLIVER + 0.1 * batch.batch * batch.length)
        )


def test_pieces_of_a_batch_teach_what_the_whole_does(task):
    spec = SPEC.replace(embedding=Embedding(Sinusoidal()))
    models = [built(spec), built(spec)]
    for accumulation, model in enumerate(models, 1):
        updater(model, task, accumulation=accumulation)(1)
    for one, two in zip(*map(learners, models), strict=True):
        torch.testing.assert_close(one.centroids, two.centroids)


def test_evaluation_changes_nothing(tmp_path, prepared, quiet):
    weights = []
    for every in (1, 100):
        spec, model = tiny_spec(evaluate_every=every), built()
        train(model, CausalTask(prepared, spec), spec, tmp_path / str(every), console=quiet)
        weights.append(model.state_dict())
    assert any("centroids" in name for name in weights[0])
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_resumed_run_has_the_centroids_of_one_that_never_stopped(tmp_path, prepared, quiet):
    spec = tiny_spec(checkpoint_every=5)
    whole, rest = built(), built(seed=9)
    train(whole, CausalTask(prepared, spec), spec, tmp_path / "whole", console=quiet)
    train(built(), StoppedAt(prepared, spec), spec, tmp_path / "parts", console=quiet)
    train(rest, CausalTask(prepared, spec), spec, tmp_path / "parts", console=quiet, resume=True)
    assert told(tmp_path / "parts") == told(tmp_path / "whole")
    for one, two, new in zip(learners(whole), learners(rest), learners(built()), strict=True):
        assert torch.equal(one.centroids, two.centroids) and torch.equal(one.counts, two.counts)
        assert not torch.equal(one.centroids, new.centroids)


def test_both_sides_of_an_encoder_decoder_learn():
    source = Encoder("source", VOCAB, DIM, (Block((routed(balanced=True), MLP(24))),))
    target = Decoder("target", VOCAB, DIM, (Block((routed(), CrossAttention(2), MLP(24))),))
    model = built(EncoderDecoder("both", source, target)).train()
    out = model(torch.randint(VOCAB, (2, 20)), torch.randint(VOCAB, (2, 12)))
    before = [learner.centroids.clone() for learner in learners(model)]
    lessons = Lessons(model)
    lessons.note(out.records)
    lessons.teach()
    assert len(before) == 2 and len({learner.lesson for learner in learners(model)}) == 2
    for learner, old, tokens in zip(learners(model), before, (40, 24), strict=True):
        assert not torch.equal(learner.centroids, old)
        torch.testing.assert_close(learner.counts.sum(-1), torch.full((2,), 0.9 * 4 * SLIVER + 0.1 * tokens))


def test_processes_learn_from_what_all_of_them_saw(monkeypatch):
    model = built().train()
    out = model(torch.randint(VOCAB, (2, 20)))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda seen: seen.mul_(3))
    lessons = Lessons(model)
    lessons.note(out.records)
    lessons.teach()
    for learner in learners(model):
        torch.testing.assert_close(learner.counts.sum(-1), torch.full((2,), 0.9 * 4 * SLIVER + 0.1 * 3 * 40))


def test_a_layer_that_is_run_several_times_learns_from_all_of_them_and_once():
    model = built().train()
    record = {name: (*parts, *parts) for name, parts in model(torch.randint(VOCAB, (2, 20))).records.items()}
    lessons = Lessons(model)
    lessons.note(record)
    lessons.teach()
    lessons.teach()
    for learner in learners(model):
        torch.testing.assert_close(learner.counts.sum(-1), torch.full((2,), 0.9 * 4 * SLIVER + 0.1 * 2 * 40))
