"""Halting that is learned: who leaves where, and what is lost on the way. Elbayad et al. 2020, arXiv:1910.10073."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import MLP, Attention, Block, ConfigError, CrossAttention, Decoder, Encoder, EncoderDecoder, Untied, stack
from formers.call import Call
from formers.exits import ExitRule, Exits, LearnedConfidence, Left, SoftmaxResponse
from formers.exits.halting import (
    CorrectnessOracle,
    GeometricHalting,
    Judged,
    LikelihoodOracle,
    MultinomialHalting,
    SequenceHalting,
)
from formers.exits.halting.distributions import cross_entropy, geometric
from formers.places import Places
from formers.tasks.chunked_loss import lost

DEPTH, VOCAB = 4, 7
ORACLE = LikelihoodOracle(0.1, 2.0)


@pytest.fixture(autouse=True)
def exact_and_repeatable() -> Any:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def awake(model: nn.Module) -> Any:
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.6)
    return model.eval()


def decoder(rule: ExitRule, **fields: Any) -> Any:
    blocks = stack(Block((Attention(2), MLP(8))), times=DEPTH)
    return awake(Decoder("adaptive", VOCAB, 8, (Exits(blocks, rule, **fields),)).build(streaming=True))


def pair(rule: ExitRule, **fields: Any) -> Any:
    source = Encoder("source", VOCAB, 8, stack(Block((Attention(2),)), times=1))
    blocks = stack(Block((Attention(2), CrossAttention(2), MLP(8))), times=DEPTH)
    return awake(
        EncoderDecoder("adaptive", source, Decoder("target", VOCAB, 8, (Exits(blocks, rule, **fields),))).build()
    )


def draw(rows: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (rows, length))


def states(model: Any, tokens: Tensor) -> list[Tensor]:
    """After each block, where no token leaves."""
    hidden, found = model.embedding.tokens(tokens), []
    call = Call(Places.run(0, tokens.shape[1]), read=model.read)
    for block in model.stack.blocks[0].blocks:
        hidden = block(hidden, call).y
        found.append(hidden)
    return found


def test_geometric_leaves_where_it_first_says_so() -> None:
    model, tokens = decoder(GeometricHalting()), draw(20, 9)
    rule, leaves = model.stack.blocks[0].rule, model(tokens).records["leaves"][0]
    assert len(leaves.unique()) >= 3
    hidden = model.embedding.tokens(tokens)
    call = Call(Places.run(0, 9), read=model.read)
    wanted = torch.full_like(leaves, DEPTH)
    for n, block in enumerate(model.stack.blocks[0].blocks):  # copied upward, as the paper says
        hidden = torch.where((wanted > n)[..., None], block(hidden, call).y, hidden)
        if n < DEPTH - 1:
            wanted = torch.where((wanted > n) & (rule.scores[n](hidden)[..., 0] >= 0), n + 1, wanted)
    assert torch.equal(leaves, wanted)
    torch.testing.assert_close(model(tokens).logits, model.read(hidden))


def test_each_exit_has_its_threshold() -> None:
    model = decoder(GeometricHalting(threshold=(2.0, 0.0, 0.0)))
    assert model(draw(3, 5)).records["leaves"][0].unique().tolist() == [2]


def test_multinomial_is_settled_behind_the_first_block() -> None:
    model, tokens = decoder(MultinomialHalting()), draw(8, 9)
    leaves = model(tokens).records["leaves"][0]
    assert len(leaves.unique()) >= 3
    scores = model.stack.blocks[0].rule.scores
    assert torch.equal(leaves[:, 0], scores(states(model, tokens)[0])[:, 0].argmax(-1) + 1)
    call = Call(Places.run(0, 9), read=model.read)
    first = model.stack.blocks[0].blocks[0](model.embedding.tokens(tokens), call).y
    assert torch.equal(leaves, scores(first).argmax(-1) + 1)


def test_a_sequence_leaves_by_the_mean_of_its_source_to_the_last_step() -> None:
    model, words, tokens = pair(SequenceHalting()), draw(12, 6), draw(12, 5)
    mask = torch.arange(6)[None] >= torch.arange(12)[:, None] % 4
    leaves = model(words, tokens, source_mask=mask).records["target.leaves"][0]
    rows = [model.source(words[i : i + 1, mask[i]]).hidden.mean(1) for i in range(12)]
    wanted = model.target.stack.blocks[0].rule.scores(torch.cat(rows)).argmax(-1) + 1
    assert len(wanted.unique()) >= 3
    assert torch.equal(leaves, wanted[:, None].expand(-1, 5))
    state = model.start(words, mask)
    for t in range(5):  # the encoder's output is not kept behind the first step, what it said is
        out = model.step(tokens[:, t : t + 1], state)
        state = out.state
        assert torch.equal(out.records["leaves"][0][:, 0], wanted)


RULES = [GeometricHalting(ORACLE, 0.3), MultinomialHalting(ORACLE, 0.3), GeometricHalting(CorrectnessOracle(0.02), 0.3)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("heads", [None, Untied()], ids=["shared", "separate"])
def test_aligned_training_loses_at_each_exit_and_what_the_oracle_says(rule: Any, heads: Any) -> None:
    model, tokens = decoder(rule, heads=heads, weights="even").train(), draw(3, 8)
    layer, hidden = model.stack.blocks[0], states(model, tokens)
    reads = [*(layer.heads if heads else [model.read] * (DEPTH - 1)), model.read]
    logits = [read(x) for read, x in zip(reads, hidden, strict=True)]
    targets = torch.where(torch.rand(3, 8) < 0.5, logits[-1].argmax(-1), draw(3, 8))  # some of which the end knows
    found = lost(model, targets, tokens)
    likelihood = torch.stack([x.log_softmax(-1).gather(-1, targets[..., None])[..., 0] for x in logits], -1)
    torch.testing.assert_close(found.nats, -likelihood.sum() / DEPTH)
    right = torch.stack([x.argmax(-1) == targets for x in logits], -1)
    real = torch.ones_like(targets, dtype=torch.bool)
    wanted = rule.oracle.of_tokens(Judged(likelihood, right, torch.arange(8)[None], real))
    assert len(wanted.unique()) > 1
    if isinstance(rule, GeometricHalting):
        log_q = geometric(torch.cat([score(x) for score, x in zip(layer.rule.scores, hidden[:-1], strict=True)], -1))
    else:
        log_q = layer.rule.scores(hidden[0]).log_softmax(-1)
    torch.testing.assert_close(found.named["halting"], 0.3 * cross_entropy(log_q, wanted))


def test_a_row_is_taught_as_a_whole_and_padding_not_at_all() -> None:
    model, words, tokens = pair(SequenceHalting(LikelihoodOracle(0.5), 0.3)).train(), draw(3, 6), draw(3, 5)
    mask = torch.arange(5)[None] < torch.tensor([[5], [2], [4]])
    targets = draw(3, 5)
    found = lost(model, targets[mask], words, tokens, mask=mask, logits_at=mask).named["halting"]
    each = [
        lost(model, targets[i : i + 1, :n], words[i : i + 1], tokens[i : i + 1, :n]).named["halting"]
        for i, n in enumerate((5, 2, 4))
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_padding_teaches_nothing(rule: Any) -> None:
    model, tokens, targets = decoder(rule).train(), draw(2, 7), draw(2, 7)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, :3] = False
    found = lost(model, targets[mask], tokens, mask=mask, logits_at=mask).named["halting"]
    parts = [lost(model, targets[:1], tokens[:1]), lost(model, targets[1:, 3:], tokens[1:, 3:])]
    torch.testing.assert_close(
        found, sum(n * part.named["halting"] for n, part in zip((7, 4), parts, strict=True)) / 11
    )


@pytest.mark.parametrize("fields", [{}, {"heads": Untied()}, {"weights": None}], ids=str)
def test_pieces_of_the_sequence_teach_the_same(fields: dict[str, Any]) -> None:
    model, tokens, targets = decoder(GeometricHalting(ORACLE), **fields).train(), draw(2, 9), draw(2, 9)
    whole, pieces = lost(model, targets, tokens), lost(model, targets, tokens, chunk=4)
    torch.testing.assert_close(pieces.nats, whole.nats)
    torch.testing.assert_close(pieces.named["halting"], whole.named["halting"])


def test_the_loss_of_halting_reaches_the_blocks_and_the_oracle_reaches_nothing() -> None:
    model, tokens, targets = decoder(MultinomialHalting(ORACLE)).train(), draw(2, 9), draw(2, 9)
    lost(model, targets, tokens).named["halting"].backward()
    blocks = model.stack.blocks[0].blocks
    assert blocks[0].sublayers[1].up.weight.grad.any()
    assert all(p.grad is None for p in blocks[-1].parameters())  # their likelihood was looked at, not learned from
    assert model.stack.blocks[0].rule.scores.weight.grad.any()


def test_without_weights_all_is_lost_at_the_end() -> None:
    model, tokens, targets = decoder(GeometricHalting(), weights=None).train(), draw(2, 9), draw(2, 9)
    torch.testing.assert_close(
        lost(model, targets, tokens).nats,
        F.cross_entropy(model.read(states(model, tokens)[-1]).flatten(0, 1), targets.flatten(), reduction="sum"),
    )


@pytest.mark.parametrize("heads", [None, Untied()], ids=["shared", "separate"])
@pytest.mark.parametrize("paths", [1, 3])
def test_mixed_training_loses_at_the_exits_that_were_drawn(heads: Any, paths: int) -> None:
    model = decoder(SoftmaxResponse(0.5), heads=heads, weights=None, mixed=paths).train()
    tokens, targets = draw(3, 8), draw(3, 8)
    leaves = model(tokens).records["leaves"]
    assert len(leaves) == paths
    assert all(after.unique().tolist() == [1, 2, 3, 4] for after in leaves)
    assert len({tuple(after.flatten().tolist()) for after in leaves}) == paths
    layer, total = model.stack.blocks[0], 0.0
    for after in leaves:
        hidden, call = model.embedding.tokens(tokens), Call(Places.run(0, 8), read=model.read)
        for n, block in enumerate(layer.blocks):
            hidden = torch.where((after > n)[..., None], block(hidden, call).y, hidden)
        logits = model.read(hidden)
        for n, head in enumerate(layer.heads):
            logits = torch.where((after == n + 1)[..., None], head(hidden), logits)
        total = total + F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / paths
    for chunk in (None, 5):
        torch.testing.assert_close(lost(model, targets, tokens, chunk=chunk).nats, total)
    assert not torch.equal(model(tokens, seed=1).records["leaves"][0], leaves[0])


def test_gradients_flow_through_states_that_were_copied_upward() -> None:
    """The first token leaves at once; what the last one predicts changes with it through the blocks above."""
    model = decoder(SoftmaxResponse(), weights=None, mixed=1)
    layer, x = model.stack.blocks[0], torch.randn(1, 3, 8, requires_grad=True)
    call = Call(Places.run(0, 3), read=model.read)
    sent = Left(torch.tensor([[1, 1, DEPTH]]))
    out = layer(x, call, None, sent)
    first = layer.blocks[0](x, call).y[:, :1]
    (reached,) = torch.autograd.grad(out.y[0, 2].sum(), x, retain_graph=True)
    assert reached[0, 0].any()
    assert out.choices.after is sent.after

    def last(copied: Tensor) -> Tensor:
        """The last token above the first block, given what the first token leaves there."""
        hidden = torch.cat([copied, layer.blocks[0](x, call).y[:, 1:]], 1)
        for n, block in enumerate(layer.blocks[1:], 1):
            hidden = torch.where((sent.after > n)[..., None], block(hidden, call).y, hidden)
        return hidden[0, 2]

    torch.testing.assert_close(out.y[0, 2], last(first))
    assert torch.autograd.functional.jacobian(last, first.detach()).any()


def test_tied_blocks_are_one() -> None:
    block = Block((Attention(2), MLP(8)))
    spec = Decoder("tied", VOCAB, 8, (Exits(stack(block, times=DEPTH), GeometricHalting(), tied=True),))
    model, tokens = awake(spec.build()), draw(2, 6)
    layer = model.stack.blocks[0]
    assert len(layer.blocks) == DEPTH
    assert sum(p.numel() for p in layer.blocks.parameters()) == sum(p.numel() for p in layer.blocks[0].parameters())
    whole, state = model(tokens).logits, None
    for t in range(6):
        out = model.step(tokens[:, t : t + 1], state)
        state = out.state
        torch.testing.assert_close(out.logits, whole[:, t : t + 1])


@pytest.mark.parametrize(
    ("rule", "fields", "said"),
    [
        (SequenceHalting(), {}, "told by an encoder's output"),
        (GeometricHalting(threshold=(0.5, 0.5)), {}, "4 blocks have 3 exits before the end, and 2 thresholds"),
        (GeometricHalting(weight=-1.0), {}, "would unlearn"),
        (GeometricHalting(CorrectnessOracle(-1.0)), {}, "for its own sake"),
        (GeometricHalting(), {"mixed": 2, "weights": None}, "GeometricHalting learns from all exits of one pass"),
        (LearnedConfidence(), {"mixed": 2, "weights": None}, "LearnedConfidence learns from all exits"),
        (SoftmaxResponse(), {"mixed": 2}, "weights='rising' are those of exits that all tokens run past"),
        (SoftmaxResponse(), {"mixed": 0, "weights": None}, "sends each token somewhere 0 times"),
    ],
)
def test_what_cannot_be_is_refused(rule: ExitRule, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decoder(rule, **fields)


def test_blocks_that_differ_are_not_tied() -> None:
    blocks = (Block((Attention(2), MLP(8))), Block((Attention(2), MLP(9))))
    with pytest.raises(ConfigError, match="blocks that differ"):
        Decoder("tied", VOCAB, 8, (Exits(blocks, GeometricHalting(), tied=True),)).build()
