"""Sparse heads: their formulas, vocabularies that do not split, and one draw a step between sparse and dense."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formers import MLP, Attention, Block, ConfigError, Decoder, MaskedLM, Tied
from formers.sparse import LocalHead, LowRankHead, Mixed, MultiplicativeHead
from formers.spec import from_json
from formers.tasks.chunked_loss import lost

DIM, VOCAB = 8, 11
HEADS = {
    "multiplicative": MultiplicativeHead(4),
    "multiplicative without bias": MultiplicativeHead(3, bias=False),
    "one module": MultiplicativeHead(1),
    "low rank": LowRankHead(3),
    "local": LocalHead(4),
    "local of three": LocalHead(4, 3),
}


def build(head: Any, vocab: int = VOCAB, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Decoder("x", vocab, DIM, (Block((Attention(2), MLP(8))),), head=head).build().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def tokens(seed: int = 1, rows: int = 3, length: int = 7) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def plain(head: Any, layer: Any, hidden: Tensor) -> Tensor:
    if isinstance(head, MultiplicativeHead):
        y = torch.einsum("...i,si,im->...sm", hidden, layer.gate, layer.mix).flatten(-2)
        return (y if layer.bias is None else y + layer.bias)[..., :VOCAB]
    if isinstance(head, LowRankHead):
        return (hidden @ layer.down.T + layer.down_bias) @ layer.up.T + layer.up_bias
    row, half = hidden.unflatten(-1, (4, 2)), head.width // 2
    seen = torch.cat([row.roll(-n, -2) for n in range(-half, half + 1)], -1)
    return (torch.einsum("...si,sio->...so", seen, layer.weight).flatten(-2) + layer.bias)[..., :VOCAB]


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_those_of_the_formula_and_no_token_has_more(name: str) -> None:
    model = build(HEADS[name])
    out = model(tokens())
    assert out.logits.shape == (3, 7, VOCAB)
    torch.testing.assert_close(out.logits, plain(HEADS[name], model.head.proj, out.hidden))
    one = model(tokens(), logits_at=slice(-1, None)).logits
    torch.testing.assert_close(one, out.logits[:, -1:])


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_loss_in_pieces_is_the_loss(name: str, chunk: int) -> None:
    model, targets = build(HEADS[name]), tokens(2)
    learned = list(model.parameters())
    whole, cut = (lost(model, targets, tokens(), chunk=size).nats for size in (None, chunk))
    torch.testing.assert_close(cut, whole)
    ours, wanted = (torch.autograd.grad(nats, learned, allow_unused=True) for nats in (cut, whole))
    torch.testing.assert_close([g for g in ours if g is not None], [g for g in wanted if g is not None])
    assert all(g is not None and g.any() for g in wanted[2:])


def mixed(probability: float = 0.5) -> nn.Module:
    return build(Mixed(MultiplicativeHead(4), probability)).train()


def taken(model: nn.Module, seed: int, chunk: int | None) -> str:
    """Which of the two heads a step learned, by the gradients that it left."""
    model.zero_grad()
    nats = lost(lambda *a, **n: model(*a, **n, seed=seed), tokens(2), tokens(), chunk=chunk).nats
    nats.backward()
    head = model.head
    moved = [name for name in ("sparse", "dense") if any(p.grad is not None for p in getattr(head, name).parameters())]
    (only,) = moved
    logits = getattr(head, only)(model(tokens()).hidden, model.embedding.tokens.weight)
    wanted = -logits.log_softmax(-1).gather(-1, tokens(2)[..., None]).sum()
    torch.testing.assert_close(nats, wanted)
    return only


@pytest.mark.parametrize("chunk", [None, 4])
def test_a_step_learns_one_of_two_heads_by_its_seed_alone(chunk: int | None) -> None:
    model = mixed()
    found = [taken(model, seed, chunk) for seed in range(12)]
    torch.manual_seed(99)
    assert [taken(model, seed, chunk) for seed in range(12)] == found
    assert {"sparse", "dense"} == set(found)


def test_the_draw_is_the_same_for_all_pieces_and_leaves_torchs_generator_alone() -> None:
    model = mixed()
    assert [taken(model, seed, None) for seed in range(12)] == [taken(model, seed, 2) for seed in range(12)]
    before = torch.get_rng_state()
    model(tokens(), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probability", [0.2, 0.75])
def test_the_sparse_head_is_drawn_with_its_probability(probability: float) -> None:
    model, hidden = mixed(probability), tokens(1, 1, 1)
    with torch.no_grad():
        out = model(hidden)
        sparse = model.head.sparse(out.hidden, model.embedding.tokens.weight)
        drawn = [torch.equal(model(hidden, seed=seed).logits, sparse) for seed in range(600)]
    assert sum(drawn) / 600 == pytest.approx(probability, abs=0.06)


def test_outside_training_it_is_always_the_sparse_head() -> None:
    model = mixed(0.01).eval()
    sparse = model.head.sparse(model(tokens()).hidden, model.embedding.tokens.weight)
    for seed in range(5):
        torch.testing.assert_close(model(tokens(), seed=seed).logits, sparse)
    state, steps = None, []
    for t in range(7):
        out = model.step(tokens()[:, t : t + 1], state)
        state = out.state
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), sparse)
    assert model.read(torch.ones(2, DIM).double()).shape == (2, VOCAB)


def test_a_tied_head_may_be_mixed_too() -> None:
    assert Mixed(Tied(), 0.5).tied
    assert not Mixed(LowRankHead(2), 0.5).tied
    model = build(Mixed(MaskedLM(), 0.5)).train()
    assert {taken(model, seed, 3) for seed in range(8)} == {"sparse", "dense"}


WRONG = {
    "a vocabulary of 11 tokens cannot be cut into 0 modules\n      fix: modules=4": MultiplicativeHead(0),
    "a vocabulary of 11 tokens cannot be cut into 12 modules\n      fix: modules=4": MultiplicativeHead(12),
    "nothing passes a middle of 0 numbers\n      fix: rank=64": LowRankHead(0),
    "a stream of 8 numbers does not split into 3 modules\n      fix: modules=2": LocalHead(3),
    "of 4 modules in a circle, 2 have no middle one\n      fix: width=1": LocalHead(4, 2),
    "with probability 1.5 there are not two heads to draw from\n      fix: probability=0.5": Mixed(Tied(), 1.5),
    "with probability 1.0 there are not two heads to draw from\n      fix: head=Tied()": Mixed(Tied(), 1.0),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_with_a_mend(message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(WRONG[message])
    assert message in str(error.value)


def test_specs_survive_json() -> None:
    for head in (*HEADS.values(), Mixed(LocalHead(4), 0.3)):
        spec = Decoder("x", VOCAB, DIM, (Block((MLP(8),)),), head=head)
        assert from_json(spec.to_json()) == spec
