"""The gate between a language model and retrieved tokens, by its closed formulas."""

import pytest
import torch
from torch import Tensor

from formers import MLP, Decoder, LayerNorm, PostNorm, RetrievalGate, TransformerXL, make, stack
from formers.attention import Attention
from formers.block import Block

SMALL = {"vocab": 40, "dim": 32, "depth": 2, "heads": 4, "hidden": 48, "segment": 4, "memory": 6, "dropout": 0.0}


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    built = make("spalm", **SMALL).build().double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def tokens(seed: int = 1) -> Tensor:
    return torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(seed))


def parts(model: torch.nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """h, and g, worked out beside the gate."""
    h = model(inputs).hidden
    return h, (h @ model.stack.blocks[-1].gate.weight[0]).sigmoid()


def test_without_neighbours_it_is_the_plain_model(model: torch.nn.Module) -> None:
    """The same decoder without the gate, on the same parameters."""
    spec = make("spalm", **SMALL)
    plain = spec.replace(blocks=spec.blocks[:-1]).build().double().eval()
    plain.load_state_dict({name: t for name, t in model.state_dict().items() if "gate" not in name})
    inputs = tokens()
    torch.testing.assert_close(model(inputs).logits, plain(inputs).logits, rtol=0, atol=0)
    nothing = torch.full((2, 9, 3), -1)
    torch.testing.assert_close(model(inputs, retrieved=nothing).logits, plain(inputs).logits, rtol=0, atol=0)


def test_one_neighbour_is_its_own_mean(model: torch.nn.Module) -> None:
    inputs, found = tokens(), tokens(2)
    h, g = parts(model, inputs)
    y = model.embedding.tokens.weight[found]
    z = (1 - g[..., None]) * y + g[..., None] * h
    out = model(inputs, retrieved=found[..., None])
    torch.testing.assert_close(out.hidden, z)
    torch.testing.assert_close(out.records["gate"][0], g)
    torch.testing.assert_close(out.logits, z @ model.embedding.tokens.weight.T)


def test_several_are_weighted_by_an_unscaled_softmax_over_those_that_are_there(model: torch.nn.Module) -> None:
    inputs, found = tokens(), torch.stack([tokens(2), tokens(3), tokens(4)], -1)
    found[0, 3, 1] = found[1, 5] = -1
    h, g = parts(model, inputs)
    out = model(inputs, retrieved=found).hidden
    for row in range(2):
        for place in range(9):
            ids = [int(i) for i in found[row, place] if i >= 0]
            here, gate = h[row, place], g[row, place]
            wanted = here
            if ids:
                y = model.embedding.tokens.weight[ids]
                wanted = (1 - gate) * (torch.softmax(y @ here, 0) @ y) + gate * here
            torch.testing.assert_close(out[row, place], wanted)


def test_the_vectors_of_what_is_found_learn(model: torch.nn.Module) -> None:
    """Values are live: the gradient reaches the row of a token that is neither read nor told apart from others."""
    inputs = torch.zeros(1, 1, dtype=torch.int64)
    model(inputs, retrieved=torch.tensor([[[7]]])).hidden.sum().backward()
    assert model.embedding.tokens.weight.grad[7].any()
    assert not model.embedding.tokens.weight.grad[8].any()


def test_tokens_of_other_places_are_refused(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"retrieved tokens \(2, 8, 3\) do not fit places \(2, 9\)"):
        model(tokens(), retrieved=torch.zeros(2, 8, 3, dtype=torch.int64))


def test_behind_a_pre_norm_trunk_the_gate_has_the_last_norm() -> None:
    block = Block((Attention(4, position=TransformerXL()), MLP(48)))
    gated = Decoder("gated", 40, 32, (*stack(block, times=2), RetrievalGate(LayerNorm())), norm=None)
    torch.manual_seed(0)
    model, plain = gated.build().double(), Decoder("plain", 40, 32, stack(block, times=2)).build().double()
    names = {name.replace("stack.blocks.2.norm", "norm"): t for name, t in model.state_dict().items()}
    plain.load_state_dict({name: t for name, t in names.items() if "gate" not in name})
    torch.testing.assert_close(model(tokens()).logits, plain(tokens()).logits)
    assert isinstance(make("spalm", **SMALL).blocks[0].residual, PostNorm)
