"""What a depth with exits learns: a loss at each of them, and whether to trust one. CALM, arXiv:2207.07061."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formers import LearnedConfidence, SoftmaxResponse, Untied, make
from formers.exits.calibration.learned import with_learned_confidence
from formers.exits.confidence import balanced_loss
from formers.tasks.chunked_loss import lost

SIZE: dict[str, Any] = {"vocab": 11, "dim": 8, "depth": 3, "heads": 2, "hidden": 12, "dropout": 0.0}


@pytest.fixture(autouse=True)
def exact_and_repeatable() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def awake(spec: Any) -> Any:
    model = spec.build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def changed(**fields: Any) -> Any:
    spec = make("calm", **SIZE)
    return spec.replace(blocks=(spec.blocks[0].replace(**fields),))


@pytest.mark.parametrize("heads", [None, Untied()])
@pytest.mark.parametrize(("weights", "shares"), [("rising", [1 / 6, 2 / 6, 3 / 6]), ("even", [1 / 3] * 3)])
def test_the_loss_is_that_of_all_exits_by_their_weights(weights: str, shares: list[float], heads: Any) -> None:
    model, tokens = awake(changed(weights=weights, heads=heads)).train(), torch.randint(11, (2, 10))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    layer, hidden = model.stack.blocks[0], model(inputs).records["exits"]
    logits = [layer.reader(n, model.read)(x) for n, x in enumerate(hidden)]
    each = [F.cross_entropy(at_exit.flatten(0, 1), targets.flatten(), reduction="sum") for at_exit in logits]
    expected = sum(share * nats for share, nats in zip(shares, each, strict=True))
    whole, cut = lost(model, targets, inputs), lost(model, targets, inputs, chunk=4)
    torch.testing.assert_close(whole.nats, expected)
    torch.testing.assert_close(cut.nats, expected)
    ours, theirs = (torch.autograd.grad(loss.nats, list(model.parameters())) for loss in (whole, cut))
    torch.testing.assert_close(ours, theirs)
    assert all(gradient.any() for gradient in ours)


def test_no_exit_but_the_end_counts_outside_training() -> None:
    model, tokens = awake(changed(weights="rising")).eval(), torch.randint(11, (2, 10))
    expected = F.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(lost(model, tokens[:, 1:], tokens[:, :-1]).nats, expected)


def test_an_exit_does_not_teach_the_blocks_above_it() -> None:
    model, tokens = awake(changed()).train(), torch.randint(11, (2, 10))
    first = model.read(model(tokens).records["exits"][0]).square().sum()
    above = list(model.stack.blocks[0].blocks[1].parameters())
    assert all(gradient is None for gradient in torch.autograd.grad(first, above, allow_unused=True))


def test_the_classifier_learns_whether_the_last_exit_agrees_and_teaches_nothing_else() -> None:
    model, tokens = awake(changed(rule=LearnedConfidence())).train(), torch.randint(11, (4, 12))
    mask = torch.arange(12).expand(4, 12) < torch.tensor([[12], [9], [12], [5]])
    out, rule = model(tokens, mask=mask), model.stack.blocks[0].rule
    *early, last = out.records["exits"]
    best = model.read(last).argmax(-1)
    expected = [balanced_loss(rule.score(x)[..., 0][mask], (model.read(x).argmax(-1) == best)[mask]) for x in early]
    torch.testing.assert_close(out.losses["confidence"], torch.stack(expected).mean())
    out.losses["confidence"].backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "stack.blocks.0.rule.score.weight",
        "stack.blocks.0.rule.score.bias",
    }


def test_rare_answers_count_as_much_as_common_ones() -> None:
    scores = torch.tensor([2.0, 2.0, 2.0, -1.0])
    truth = torch.tensor([True, True, True, False])
    yes, no = F.softplus(torch.tensor(-2.0)), F.softplus(torch.tensor(-1.0))
    torch.testing.assert_close(balanced_loss(scores, truth), (yes + no) / 2)
    torch.testing.assert_close(balanced_loss(scores[:3], truth[:3]), yes)


def test_a_classifier_is_taught_beside_a_frozen_model() -> None:
    model, tokens = awake(changed(rule=SoftmaxResponse(0.5))).eval(), torch.randint(11, (8, 12))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses: list[float] = []

    def run(taught: Any, step: int) -> Any:
        out = taught(tokens)
        losses.append(out.losses["confidence"].item())
        return out

    taught = with_learned_confidence(model, run, steps=60)
    assert losses[-1] < 0.95 * losses[0]
    assert taught.spec.blocks[0].rule == LearnedConfidence()
    assert model.spec.blocks[0].rule == SoftmaxResponse(0.5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert not any(module.training for module in taught.modules())
    torch.testing.assert_close(taught(tokens).logits, awake_full(model)(tokens).logits)


def awake_full(model: nn.Module) -> nn.Module:
    from formers.exits.calibration import with_threshold

    return with_threshold(model, None)


def test_tokens_wait_for_blocks_that_nobody_needs_and_are_read_when_somebody_does() -> None:
    """After many tokens that left early one goes deep, and meets the keys that one pass would have made."""
    from formers.exits import Left
    from formers.exits.waiting import MOST

    model = awake(changed()).eval()
    layer, length = model.stack.blocks[0], MOST + 20
    x, after = torch.randn(2, length, 8), torch.ones(2, length, dtype=torch.int64)
    after[0, [30, length - 1]] = 3
    after[1, length - 2] = 2
    from formers.call import Call
    from formers.places import Places

    whole = layer(x, Call(Places.run(0, length)), choices=Left(after))
    state, found, waiting = None, [], 0
    for t in range(length):
        out = layer(x[:, t : t + 1], Call(Places.run(t, 1)), state, Left(after[:, t : t + 1]))
        state = out.state
        found.append(out.y)
        waiting = max(waiting, *state.waiting.counts)
    torch.testing.assert_close(torch.cat(found, 1), whole.y)
    assert 30 < waiting <= MOST
