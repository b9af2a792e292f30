"""The loss in pieces is the loss, with its gradients, and the logits of one piece exist at a time."""

import pytest
import torch
from tiny_task import TEXT, tiny
from torch import nn

from formers import MLP, Attention, Block, ConfigError, Decoder, Tied, Untied, stack
from formers.reversible import Reversible
from formers.tasks import Causal, Masked, evaluate_text, prepare
from formers.tasks.chunked_loss import lost
from formers.train import TrainSpec

CLOSE = {"atol": 1e-9, "rtol": 1e-9}
HEADS = {"tied": Tied(), "tied with bias": Tied(bias=True), "untied": Untied(bias=True)}


def model_of(head: object, reversible: bool = False) -> nn.Module:
    torch.manual_seed(0)
    blocks = stack(Block((Attention(2), MLP(12))), times=2)
    spec = Decoder("model", 11, 8, (Reversible(blocks),) if reversible else blocks, head=head)
    return spec.build().double()


def text(rows: int = 3, length: int = 10) -> torch.Tensor:
    return torch.randint(11, (rows, length + 1), generator=torch.Generator().manual_seed(1))


def nats_and_slopes(model: nn.Module, **how: object) -> list[torch.Tensor]:
    loss = lost(model, text()[:, 1:], text()[:, :-1], **how).nats
    return [loss.detach(), *torch.autograd.grad(3 * loss, list(model.parameters()))]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pieces_are_the_whole(head: str, chunk: int, smoothing: float) -> None:
    model = model_of(HEADS[head])
    found = nats_and_slopes(model, chunk=chunk, smoothing=smoothing)
    torch.testing.assert_close(found, nats_and_slopes(model, smoothing=smoothing), **CLOSE)


def test_behind_a_reversible_stack() -> None:
    model = model_of(Untied(), reversible=True)
    torch.testing.assert_close(nats_and_slopes(model, chunk=7), nats_and_slopes(model), **CLOSE)


def test_at_chosen_places_and_nowhere() -> None:
    model, chosen = model_of(Tied()), torch.rand(3, 10, generator=torch.Generator().manual_seed(2)) < 0.4
    for at in (chosen, torch.zeros_like(chosen)):
        targets = text()[:, 1:][at]
        named = {"logits_at": at}
        found = lost(model, targets, text()[:, :-1], chunk=4, **named).nats
        torch.testing.assert_close(found, lost(model, targets, text()[:, :-1], **named).nats, **CLOSE)
        found.backward()


def test_logits_of_a_piece_at_a_time_and_only_the_streams_gradient_is_kept() -> None:
    model, rows, sizes = model_of(Untied()), [], []
    model.head.register_forward_hook(lambda module, given, logits: rows.append(len(logits)))
    stream = torch.randn(3, 10, 8, dtype=torch.float64, requires_grad=True)
    model.stack.forward = lambda x, call, state: nn.Module.__call__(Fixed(), stream)
    loss = lost(model, text()[:, 1:], text()[:, :-1], chunk=7).nats
    assert rows == [7, 7, 7, 7, 2]
    saved = loss.grad_fn.saved_tensors
    sizes = sorted(tensor.numel() for tensor in saved if tensor is not None)
    assert sizes == sorted([stream.numel(), 8, 8, 11 * 8])


class Fixed(nn.Module):
    """A depth that puts out what it is given."""

    def forward(self, y: torch.Tensor) -> object:
        from formers.call import Out

        return Out(y)


def test_without_gradients_it_is_the_same_number() -> None:
    model = model_of(Tied())
    with torch.no_grad():
        found = lost(model, text()[:, 1:], text()[:, :-1], chunk=7).nats
    torch.testing.assert_close(found, lost(model, text()[:, 1:], text()[:, :-1]).nats.detach(), **CLOSE)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert not lost(model, text()[:, 1:], text()[:, :-1], chunk=7).nats.requires_grad


def test_under_autocast_the_gradient_is_that_of_the_whole() -> None:
    model = model_of(Untied()).float()

    def found(chunk: int | None) -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # its cache sums gradients in bf16
            loss = lost(model, text()[:, 1:], text()[:, :-1], chunk=chunk).nats
        return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]

    head, whole = found(1000), found(None)
    torch.testing.assert_close(head, whole, atol=1e-5, rtol=1e-5)
    for one, other in zip(found(7), whole, strict=True):  # five products of the head, each rounded to bf16
        assert one.dtype == other.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 2 * torch.finfo(torch.bfloat16).eps


def test_a_second_backward_pass_is_refused_and_not_wrong() -> None:
    model = model_of(Tied())
    loss = lost(model, text()[:, 1:], text()[:, :-1], chunk=7).nats
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_does_not_fit_is_told() -> None:
    model = model_of(Tied())
    with pytest.raises(ValueError, match=r"targets \(3, 9\) do not fit places \(3, 10\)"):
        lost(model, text()[:, 2:], text()[:, :-1], chunk=7)
    with pytest.raises(ValueError, match="logits_at=None"):
        lost(model, text()[:, 1:], text()[:, :-1], chunk=7, logits_at=None)
    with pytest.raises(ConfigError, match="loss_chunk=0 must be at least 1"):
        TrainSpec(steps=1, loss_chunk=0).check()


@pytest.mark.parametrize(("task", "member"), [(Causal, "gpt2"), (Masked, "bert")])
def test_tasks_lose_the_same_in_pieces(task: type, member: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    special = ("end", "pad", "mask")
    prepared = prepare([TEXT], tmp_path_factory.mktemp("prepared"), held_out=0.1, special=special)
    model = tiny(member, prepared.tokenizer.vocab, length=32).double()
    spec = TrainSpec(steps=10, batch=4, length=16, label_smoothing=0.1)
    pieces = task(prepared, spec.replace(loss_chunk=5))
    whole = task(prepared, spec)
    batch = whole.batch(1)
    torch.testing.assert_close(pieces.loss(model, batch).nats, whole.loss(model, batch).nats, **CLOSE)
    if task is Causal:
        assert pieces.evaluate(model.eval()) == pytest.approx(whole.evaluate(model), rel=1e-9)
        assert evaluate_text(model, prepared.held_out, prepared.tokenizer, 16, 4, loss_chunk=3)["tokens"] > 0
