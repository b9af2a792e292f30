"""One block, applied to each token as often as it needs."""

from typing import Any

import pytest
import torch
from torch import nn

from formers import (
    ACT,
    MLP,
    Attention,
    Block,
    ConfigError,
    Decoder,
    Embedding,
    LayerNorm,
    PostNorm,
    Recomputed,
    Rotary,
    SeparableConv,
    Universal,
    make,
    stack,
)
from formers.position import sinusoid

PLAIN = Block((Attention(2), MLP(16)), PostNorm())
CONVOLVED = Block((Attention(2, position=Rotary()), SeparableConv(12)), PostNorm())


def decoder(halting: ACT | None, steps: int = 6, block: Any = PLAIN, **fields: Any) -> nn.Module:
    """A model in float64 whose tokens halt at steps of their own."""
    torch.manual_seed(0)
    model = Decoder("universal", 11, 8, (Universal(block, steps, halting, **fields),)).build(streaming=True)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.3)
    nn.init.normal_(model.embedding.tokens.weight, std=2.0)
    if halting is not None:
        nn.init.normal_(depth(model).halting.weight)
        nn.init.constant_(depth(model).halting.bias, halting.bias)
    return model.double().eval()


def depth(model: nn.Module) -> Any:
    return model.stack.blocks[0]


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(1))


def deepening(model: nn.Module) -> torch.Tensor:
    """A text whose last tokens take more steps than any of its first five."""
    inputs = tokens(32, 12)
    steps = model(inputs).records["steps"][0]
    found = inputs[steps[:, :5].amax(1) < steps[:, 5:].amax(1)]
    assert len(found)
    return found[:1]


def blocks_run(model: nn.Module) -> list[int]:
    """How many tokens each later run of the block is of."""
    runs: list[int] = []
    depth(model).block.register_forward_hook(lambda module, given, out: runs.append(given[0].shape[1]))
    return runs


def test_fixed_steps_are_a_depth_of_equal_layers_with_signals_before_each() -> None:
    model = decoder(None, steps=3)
    torch.manual_seed(1)
    deep = Decoder("deep", 11, 8, stack(PLAIN, times=3), Embedding()).build().double().eval()
    for layer in deep.stack.blocks:
        layer.load_state_dict(depth(model).block.state_dict())

        def add_signals(module: Any, given: tuple[Any, ...], step: int = 1 + [*deep.stack.blocks].index(layer)) -> Any:
            x, call, *rest = given
            signals = [sinusoid(p, 8, "interleaved", x.dtype) for p in (call.at.pos, torch.tensor(step))]
            return x + signals[0] + signals[1], call, *rest

        layer.register_forward_pre_hook(add_signals)
    deep.embedding.load_state_dict(model.embedding.state_dict())
    deep.norm.load_state_dict(model.norm.state_dict())
    torch.testing.assert_close(model(tokens(2, 7)).logits, deep(tokens(2, 7)).logits)


@pytest.mark.parametrize("halted", ["transformed", "copied"])
@pytest.mark.parametrize(("block", "bias"), [(PLAIN, -1.0), (CONVOLVED, 3.0)])
def test_cached_decoding_equals_one_pass_when_later_tokens_go_deeper(halted: str, block: Block, bias: float) -> None:
    model = decoder(ACT(bias=bias, halted=halted), 12, block)
    inputs = deepening(model)
    whole = model(inputs)
    for sizes in ([1] * 12, [5, 4, 3], [11, 1]):
        state, parts = None, []
        for part in inputs.split(sizes, 1):
            out = model(part, state)
            state = out.state
            parts.append(out.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole.logits)


def test_no_more_steps_are_run_than_some_token_needs() -> None:
    model = decoder(ACT(), steps=50)
    runs = blocks_run(model)
    deepest = model(tokens(2, 9)).records["steps"][0].max()
    assert len(runs) == deepest < 50


@torch.no_grad()
def test_copied_tokens_are_not_run_through_the_block_again() -> None:
    model, inputs = decoder(ACT(bias=-1.0, halted="copied"), 12), tokens(1, 12)
    runs, state, taken = blocks_run(model), None, 0
    for token in inputs.split(1, 1):
        out = model(token, state)
        state, taken = out.state, taken + int(out.records["steps"][0])
    assert runs == [1] * taken
    assert taken < 12 * 12


@torch.no_grad()
def test_tokens_that_wait_go_through_a_step_together_when_one_needs_it() -> None:
    model = decoder(ACT(bias=-1.0), 12)
    inputs = deepening(model)
    runs, state, deepest = blocks_run(model), None, 0
    for token in inputs.split(1, 1):
        out = model(token, state)
        state, deepest = out.state, max(deepest, int(out.records["steps"][0]))
    assert sum(runs) <= 12 * deepest
    assert max(runs) > 1
    assert [past is not None for past in state.blocks[0].blocks] == [step < deepest for step in range(12)]


@pytest.mark.parametrize("combine", ["interpolated", "accumulated"])
def test_feed_forwards_run_for_tokens_alone_that_need_them(combine: str) -> None:
    model, inputs = decoder(ACT(bias=-1.0, halted="copied", combine=combine), 12), tokens(3, 12)
    seen: list[int] = []
    depth(model).block.sublayers[1].up.register_forward_hook(
        lambda m, given, out: seen.append(given[0][..., 0].numel())
    )
    whole = model(inputs)
    assert seen == [36] * len(seen)
    seen.clear()
    with torch.no_grad():
        some = model(inputs)
    assert sum(seen) == int(some.records["steps"][0].sum())
    torch.testing.assert_close(some.logits, whole.logits)


def test_a_copied_token_stands_still_and_the_others_move() -> None:
    model, inputs = decoder(ACT(bias=-1.0, halted="copied"), 12), tokens(1, 12)
    seen: list[torch.Tensor] = []
    depth(model).halting.register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
    steps = model(inputs).records["steps"][0][0]
    at = sinusoid(torch.arange(1, 1 + len(seen)), 8, "interleaved", torch.float64)[:, None]
    moved = ((torch.stack(seen) - at).diff(dim=0).abs() > 1e-9).any(-1)
    for token, taken in enumerate(steps.tolist()):
        wanted = [step < taken for step in range(len(moved))]
        assert moved[:, token].tolist() == wanted


def test_padding_costs_nothing_and_ponder_teaches_halting() -> None:
    model, inputs = decoder(ACT(bias=0.0)), tokens(1, 7)
    alone = model(inputs)
    padded = model(torch.cat([tokens(1, 4), inputs], 1), mask=torch.arange(11)[None] >= 4)
    torch.testing.assert_close(padded.logits[:, 4:], alone.logits)
    torch.testing.assert_close(padded.losses["ponder"], alone.losses["ponder"])
    alone.losses["ponder"].backward()
    assert depth(model).halting.weight.grad.any()


@pytest.mark.parametrize("halted", ["transformed", "copied"])
def test_recomputing_is_the_same_pass(halted: str) -> None:
    plain = decoder(ACT(bias=-1.0, halted=halted))
    spec = plain.spec.replace(blocks=(Recomputed(plain.spec.blocks),))
    again = spec.build().double().eval()
    again.load_state_dict({name.replace("blocks.0", "blocks.0.blocks.0"): p for name, p in plain.state_dict().items()})
    found = []
    for model in (plain, again):
        out = model(tokens(2, 9))
        (out.logits.square().sum() + out.losses["ponder"]).backward()
        found.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(found[1], found[0])


def test_the_block_may_recompute_too() -> None:
    spec = Universal(Recomputed((PLAIN,)), 3)
    out = Decoder("inner", 11, 8, (spec,)).build(streaming=True)(tokens(2, 5))
    out.logits.sum().backward()


def test_both_sides_of_an_encoder_decoder_ponder() -> None:
    small = {"vocab": 11, "dim": 8, "steps": 3, "heads": 2, "hidden": 8}
    model = make("universal_encoder_decoder", **small).build()
    out = model(tokens(2, 5), tokens(2, 4), source_mask=torch.arange(5)[None] < torch.tensor([[3], [5]]))
    assert set(out.losses) == {"source.ponder", "target.ponder"}
    assert out.records["source.steps"][0].tolist()[0][3:] == [0, 0]
    assert all(loss.item() > 0 for loss in out.losses.values())


def test_halting_of_a_new_model_begins_at_its_bias_whatever_the_model_begins_with() -> None:
    model = make("universal", vocab=11, dim=8, heads=2, hidden=8).build()
    assert depth(model).halting.bias.item() == 1.0
    assert depth(model).halting.spec.ponder == 0.01


REFUSED = {
    "applied 0 times": Universal(PLAIN, steps=0),
    "is run for all tokens or for none": Universal(Recomputed((PLAIN,)), halting=ACT(halted="copied")),
    'sines and cosines come in pairs, but dim is 7(.|\n)*time="learned"': Universal(
        Block((MLP(4),), PostNorm(LayerNorm())), position=None
    ),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_is_refused(told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Decoder("refused", 11, 7 if "dim is 7" in told else 8, (REFUSED[told],)).build()


def test_an_unknown_transition_is_refused() -> None:
    with pytest.raises(ConfigError, match="no transition named 'sparse'"):
        make("universal", transition="sparse")
