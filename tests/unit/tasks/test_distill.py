"""A student's loss is a mixture of the text's and its teacher's, and it begins with what is no expert's."""

import pytest
import torch
from tiny_task import TEXT, tiny
from torch.nn import functional as F

from formers import ConfigError, make
from formers.convert import dense_counterpart, inherit, pairs_of
from formers.feedforward import MLP
from formers.tasks import Causal, Distilled, Prepared, prepare
from formers.tasks.distill import soft_nats
from formers.train import TrainSpec


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare([TEXT], tmp_path_factory.mktemp("taught"), held_out=0.1)


def task_of(prepared: Prepared, **given) -> Causal:
    return Causal(prepared, TrainSpec(steps=2, batch=2, length=16, **given))


def test_the_loss_is_a_mixture_by_hand(prepared: Prepared) -> None:
    vocab = prepared.tokenizer.vocab
    teacher, student = tiny("switch", vocab, experts=2), tiny("gpt2", vocab).eval()
    task = Distilled(task_of(prepared), teacher)
    batch = task.batch(1)
    nats = task.loss(student, batch).nats
    p = student(batch["inputs"]).logits.log_softmax(-1)
    q = teacher.eval()(batch["inputs"]).logits.softmax(-1)
    hard = F.nll_loss(p.flatten(0, 1), batch["targets"].flatten(), reduction="sum")
    torch.testing.assert_close(nats, 0.75 * hard - 0.25 * (q * p).sum())
    nats.backward()
    assert all(p.grad is not None for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_teacher_that_knows_nothing_asks_for_the_uniform_distribution() -> None:
    logits = torch.zeros(3, 5, requires_grad=True)
    soft_nats(logits, torch.zeros(3, 5)).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3, 5), atol=1e-7, rtol=0)


def test_what_cannot_be_taught_is_told(prepared: Prepared) -> None:
    vocab = prepared.tokenizer.vocab
    task = Distilled(task_of(prepared), tiny("switch", vocab + 1, experts=2))
    with pytest.raises(ConfigError, match=f"give vocab={vocab + 1}"):
        task.require(tiny("gpt2", vocab).spec)
    chunked = Distilled(task_of(prepared, loss_chunk=8), tiny("switch", vocab, experts=2))
    with pytest.raises(ConfigError, match="leave out loss_chunk"):
        chunked.loss(tiny("gpt2", vocab), chunked.batch(1))
    with pytest.raises(ConfigError, match="a share of the loss"):
        Distilled(task_of(prepared), tiny("gpt2", vocab), soft=0.0)


def test_a_run_goes_on_under_the_same_teacher_alone(prepared: Prepared) -> None:
    vocab, plain = prepared.tokenizer.vocab, task_of(prepared)
    teacher = tiny("switch", vocab, experts=2)
    known = [plain.data, Distilled(plain, teacher).data, Distilled(plain, teacher, soft=0.5).data]
    assert known[1] == Distilled(plain, tiny("switch", vocab, experts=2)).data
    assert len({str(data) for data in known}) == 3


def test_the_dense_counterpart_begins_with_what_is_no_experts() -> None:
    old = tiny("switch", 30, experts=2)
    spec = dense_counterpart(old.spec)
    assert "Switch(" not in repr(spec)
    new = spec.build()
    inherit(old, new, pairs_of(old, new))
    kept = {name for name, tensor in new.state_dict().items() if (old.state_dict().get(name) is not None)}
    assert {name for name in new.state_dict() if name not in kept} == {
        f"stack.blocks.1.sublayers.1.{part}.{kind}" for part in ("up", "down") for kind in ("weight", "bias")
    }
    for name in kept:
        torch.testing.assert_close(new.state_dict()[name], old.state_dict()[name], rtol=0, atol=0)
    both = dense_counterpart(make("switch_encoder_decoder", **{"vocab": 9, "dim": 8, "depth": 2, "heads": 2}))
    assert isinstance(both.source.blocks[1].sublayers[-1], MLP)
    with pytest.raises(ConfigError, match="is dense"):
        dense_counterpart(spec)
