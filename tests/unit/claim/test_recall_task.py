from dataclasses import replace
from typing import Any

import pytest
import torch

from formers import Attention, CompressiveMemory, ConfigError, ConvCompression, MeanCompression, TransformerXL
from formers.claim.recall_task import HELD_OUT, QUESTION, TINY, Recall, Recaller
from formers.output import Output
from formers.tasks.chunked_loss import lost

TASK = Recall(length=24, segment=4, markers=3, fillers=2, rows=64, evaluated=4)


def remembering(loss: Any = None) -> Attention:
    compression = MeanCompression(2) if loss is None else ConvCompression(2)
    return Attention(2, position=TransformerXL(), memory=CompressiveMemory(4, 4, 10, compression, loss))


def test_one_marker_stands_in_the_first_segment_and_the_question_at_the_end() -> None:
    inputs, targets = TASK.batch(1)["inputs"], TASK.batch(1)["targets"]
    assert inputs.shape == (64, 24) and targets.shape == (64, 1) and inputs.max() < TASK.vocab == 6
    is_marker = (inputs >= 1) & (inputs <= 3)
    assert (is_marker.sum(1) == 1).all()
    assert torch.equal(inputs[is_marker], targets[:, 0])
    assert set(is_marker.nonzero()[:, 1].tolist()) == {0, 1, 2, 3}
    assert (inputs == QUESTION).nonzero()[:, 1].eq(23).all()
    assert TASK.chance == pytest.approx(1 / 3)


def test_a_step_always_draws_the_same_and_no_other_step_does() -> None:
    assert torch.equal(TASK.batch(7)["inputs"], TASK.batch(7)["inputs"])
    others = [TASK.batch(8), replace(TASK, seed=1).batch(7), replace(TASK, seed=HELD_OUT).batch(7)]
    assert not any(torch.equal(TASK.batch(7)["targets"], other["targets"]) for other in others)


def test_accuracy_counts_markers_that_are_told_from_what_is_remembered() -> None:
    def oracle(tokens: torch.Tensor, state: Any = None, *, logits_at: Any, remember: bool = True) -> Output:
        if state is None:
            assert tokens.shape == (64, 20) and logits_at is None and remember
            return Output(None, None, tokens.where(tokens <= TASK.markers, 0).amax(1), {})
        state[::4] = 0
        return Output(torch.nn.functional.one_hot(state[:, None], TASK.vocab).double(), None, None, {})

    assert TASK.evaluate(oracle)["accuracy"] == 0.75  # type: ignore[arg-type]


def test_the_answer_teaches_nothing_through_the_memory_but_the_memorys_own_loss_does() -> None:
    torch.manual_seed(0)
    model, batch = Recaller(TASK, dim=16, hidden=16).spec(remembering("autoencoding")).build().train(), TASK.batch(1)
    loss = TASK.loss(model, batch)
    memory = model.stack.blocks[0].sublayers[0].memory
    assert torch.autograd.grad(loss.nats, memory.compress.conv.weight, retain_graph=True, allow_unused=True) == (None,)
    loss.named["compression"].backward()
    assert memory.compress.conv.weight.grad.any() and memory.loss.restore.weight.grad.any()
    whole = lost(model.eval(), batch["targets"], batch["inputs"], logits_at=slice(-1, None))
    torch.testing.assert_close(loss.nats, whole.nats)


def test_a_model_that_cannot_tell_is_refused() -> None:
    TINY.task.require(TINY.spec(Attention(2)))
    with pytest.raises(ConfigError, match="a Decoder with vocab=13"):
        Recall().require(TINY.spec(Attention(2)))


def test_means_are_recalled() -> None:
    recaller = Recaller(replace(TASK, rows=32), dim=16, hidden=16, steps=120, rate=1e-2)
    assert recaller.accuracy(recaller.learn(remembering(), lambda: None)) > 0.9
