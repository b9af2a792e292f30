"""A Decision Transformer under the weights of transformers' model of that name."""

import pytest
import torch
from torch import nn

from formers import make
from formers.control.spaces import Numbers

transformers = pytest.importorskip("transformers")
DIM, DEPTH, HORIZON = 24, 2, 32


def published() -> nn.Module:
    config = transformers.DecisionTransformerConfig(
        state_dim=3, act_dim=2, hidden_size=DIM, max_ep_len=HORIZON, n_layer=DEPTH, n_head=2, n_inner=4 * DIM
    )
    torch.manual_seed(0)
    model = transformers.DecisionTransformerModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def under_its_weights(theirs: nn.Module) -> nn.Module:
    action = Numbers(2, (-1.0, -1.0), (1.0, 1.0))
    given = {"dim": DIM, "depth": DEPTH, "heads": 2, "horizon": HORIZON, "return_scale": 10.0}
    ours = make("decision_transformer", observation=Numbers(3), action=action, **given).build().double().eval()
    weights = theirs.state_dict()
    copied = {
        "embedding.returns": "embed_return", "embedding.observations.linear": "embed_state",
        "embedding.actions": "embed_action", "embedding.actions.linear": "embed_action",
        "embedding.steps": "embed_timestep", "embedding.norm": "embed_ln", "norm": "encoder.ln_f",
        "head.linear": "predict_action.0",
    }  # fmt: skip
    with torch.no_grad():
        for mine, their in copied.items():
            module = dict(ours.named_modules())[mine]
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(weights[f"{their}.{name}"])
        # Theirs adds the vector of place 0 to every token behind the norm: what is left of GPT-2's positions.
        ours.embedding.norm.bias.add_(weights["encoder.wpe.weight"][0])
        for n, block in enumerate(ours.stack.blocks):
            copy_block(block, {name.removeprefix(f"encoder.h.{n}."): w for name, w in weights.items()})
    return ours


def copy_block(block: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """GPT-2 keeps its matrices the other way round, and those of queries, keys and values side by side."""
    attention, mlp = block.sublayers
    projection = attention.projection
    joined = zip(weights["attn.c_attn.weight"].chunk(3, 1), weights["attn.c_attn.bias"].chunk(3), strict=True)
    for layer, (weight, bias) in zip((projection.q_proj, projection.k_proj, projection.v_proj), joined, strict=True):
        layer.weight.copy_(weight.T)
        layer.bias.copy_(bias)
    pairs = {"attn.c_proj": projection.out_proj, "mlp.c_fc": mlp.up, "mlp.c_proj": mlp.down}
    for name, layer in pairs.items():
        layer.weight.copy_(weights[f"{name}.weight"].T)
        layer.bias.copy_(weights[f"{name}.bias"])
    for norm, name in zip(block.residual.norms, ("ln_1", "ln_2"), strict=True):
        norm.weight.copy_(weights[f"{name}.weight"])
        norm.bias.copy_(weights[f"{name}.bias"])


@pytest.mark.parametrize("padded", [0, 4])
def test_actions_are_those_of_the_published_model(padded: int) -> None:
    theirs = published()
    ours = under_its_weights(theirs)
    chance = torch.Generator().manual_seed(1)
    states, actions, returns = (torch.randn(3, 9, width, generator=chance).double() for width in (3, 2, 1))
    timesteps = torch.randint(0, HORIZON, (3, 9), generator=chance)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :padded] = False
    with torch.no_grad():
        wanted = theirs(
            states=states, actions=actions, returns_to_go=returns, timesteps=timesteps, attention_mask=mask.long()
        ).action_preds
        told = ours(10.0 * returns[..., 0], states, actions, timesteps, mask=mask).actions
    torch.testing.assert_close(told[mask], wanted[mask])
