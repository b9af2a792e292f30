from dataclasses import replace

import pytest
import torch
from torch import nn

from formers import LSH, Attention, ConfigError, Encoder, SelfLast, SharedQK
from formers.claim.copy_task import HELD_OUT, START, TINY, Copying, token_by_token
from formers.output import Output

TASK = Copying(symbols=9, word=5, rows=3, evaluated=4)


def test_the_second_half_repeats_the_first_and_is_the_target() -> None:
    batch = TASK.batch(1)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == (3, TASK.length) == (3, 11) and targets.shape == (3, 5)
    assert (inputs[:, [0, 6]] == START).all() and targets.min() > START
    assert torch.equal(inputs[:, 1:6], targets) and torch.equal(inputs[:, 7:], targets[:, :-1])
    assert TASK.size(batch) == (33, 15)


def test_a_step_always_draws_the_same_and_no_other_step_does() -> None:
    assert torch.equal(TASK.batch(7)["inputs"], TASK.batch(7)["inputs"])
    others = [TASK.batch(8), replace(TASK, seed=1).batch(7), replace(TASK, seed=HELD_OUT).batch(7)]
    assert not any(torch.equal(TASK.batch(7)["targets"], other["targets"]) for other in others)


class Oracle(nn.Module):
    """Reads the symbol that comes next off the first half; wrong in every `slip`th place."""

    def __init__(self, slip: int) -> None:
        super().__init__()
        self.slip, self.seeds = slip, []

    def forward(self, tokens, *, logits_at, seed, remember):
        self.seeds.append(seed)
        right = tokens[:, 1 : TASK.word + 1].clone()
        right[:, :: self.slip] += 1
        logits = nn.functional.one_hot(right, TASK.vocab + 1).double()
        assert tokens[:, logits_at].shape == right.shape
        return Output(logits, None, None, {})


@pytest.mark.parametrize(("slip", "accuracy"), [(5, 0.8), (2, 0.4)])
def test_accuracy_counts_right_symbols_of_the_second_half(slip: int, accuracy: float) -> None:
    oracle = Oracle(slip)
    assert TASK.evaluate(oracle)["accuracy"] == pytest.approx(accuracy)
    assert oracle.seeds == [0, 1, 2, 3]


def test_a_model_that_cannot_hold_the_symbols_is_refused() -> None:
    spec = TINY.spec(Attention(2))
    TINY.task.require(spec)
    with pytest.raises(ConfigError, match="a Decoder with vocab=10"):
        TASK.require(spec)
    with pytest.raises(ConfigError):
        TASK.require(Encoder("reads", 10, 8, spec.blocks))


def test_full_attention_learns_to_copy_and_its_weights_serve_another_spec() -> None:
    copier, steps = replace(TINY, task=replace(TINY.task, rows=32), dim=32, steps=120, rate=1e-2), []
    model = copier.learn(Attention(2), lambda: steps.append(1))
    assert copier.accuracy(model) > 0.95 and len(steps) == 120
    assert copier.accuracy(model, Attention(2)) == copier.accuracy(model)
    assert not model.training


def test_what_is_read_token_by_token_is_what_one_pass_reads_where_attention_knows_the_past_alone() -> None:
    model = TINY.learn(Attention(2), lambda: None)
    inputs = TINY.task.held_out(0)["inputs"]
    torch.testing.assert_close(
        token_by_token(model, inputs, 0)[:, -TINY.task.word :], TINY.task.in_one_pass(model, inputs, 0)
    )
    assert TINY.accuracy(model, read=token_by_token) == TINY.accuracy(model)
    assert TINY.moved(model, Attention(2)) == 0


def test_a_last_token_moves_the_chunks_of_earlier_ones() -> None:
    alike = Attention(2, position=SelfLast(), projection=SharedQK(), scale=1.0)
    model = TINY.learn(alike, lambda: None)
    assert TINY.moved(model, alike.replace(select=LSH(4, 2, 4, plain_below=0))) > 0
    assert TINY.moved(model, alike.replace(select=LSH(4, 2, 4, strict=True))) == 0


def test_learning_is_the_same_every_time() -> None:
    first, second = (TINY.learn(Attention(2), lambda: None) for _ in range(2))
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), rtol=0, atol=0)
