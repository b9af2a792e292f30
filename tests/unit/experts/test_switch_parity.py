"""Switch Transformers with the weights of transformers' say what those say.

Theirs are run in evaluation, where no jitter changes what the experts read; a limit of tokens is one of theirs for each
sequence.
"""

import pytest
import torch
from torch import nn

from formers import MLP, Switch, make
from formers.call import Call
from formers.places import Places
from formers.spec import Site

transformers = pytest.importorskip("transformers")
DIM, HIDDEN, EXPERTS, LENGTH = 16, 24, 4, 12


def config(**given) -> "transformers.SwitchTransformersConfig":
    sizes = {"d_model": DIM, "d_ff": HIDDEN, "num_experts": EXPERTS, "expert_capacity": 1000}
    return transformers.SwitchTransformersConfig(**sizes | given)


def copy_experts(theirs: nn.Module, ours: nn.Module) -> None:
    """Of a SparseMLP into a SwitchLayer without biases."""
    each = [theirs.experts[f"expert_{i}"] for i in range(EXPERTS)]
    ours.router.weight.copy_(theirs.router.classifier.weight)
    ours.experts.up.weight.copy_(torch.stack([one.wi.weight for one in each]))
    ours.experts.down.weight.copy_(torch.stack([one.wo.weight for one in each]))


@pytest.mark.parametrize("capacity", [1.0, 1.25, None])
def test_a_layer_gives_what_theirs_gives_and_drops_what_theirs_drops(capacity: float | None) -> None:
    from transformers.models.switch_transformers import modeling_switch_transformers as switch

    torch.manual_seed(0)
    room = 1000 if capacity is None else -(-int(capacity * LENGTH * 4) // (4 * EXPERTS))
    theirs = switch.SwitchTransformersSparseMLP(config(expert_capacity=room)).eval()
    expert = MLP(HIDDEN, "relu", bias=False)
    ours = Switch(expert, EXPERTS, eval_capacity=capacity).build(Site(DIM)).eval()
    x = torch.randn(3, LENGTH, DIM)
    with torch.no_grad():
        for parameter in theirs.parameters():
            nn.init.normal_(parameter, std=0.5)
        copy_experts(theirs, ours)
        out = ours(x, Call(Places.run(0, LENGTH), remember=False))
        seated, gates, _ = theirs.router(x)
        torch.testing.assert_close(out.y, theirs(x))
    assert (out.records["dropped"][0] > 0) == (capacity is not None)
    assert out.records["dropped"][0] == 3 * LENGTH - seated.sum()
    assert (gates > 0).all()


def test_a_whole_model_gives_what_theirs_gives() -> None:
    torch.manual_seed(0)
    vocab, depth, heads, head_dim = 30, 4, 2, 6
    given = {
        "vocab_size": vocab,
        "d_kv": head_dim,
        "num_heads": heads,
        "num_layers": depth,
        "num_decoder_layers": depth,
    }
    theirs = transformers.SwitchTransformersForConditionalGeneration(
        config(**given, num_sparse_encoder_layers=2, num_sparse_decoder_layers=2, decoder_start_token_id=0)
    ).eval()
    sizes = {"vocab": vocab, "dim": DIM, "depth": depth, "heads": heads, "head_dim": head_dim, "hidden": HIDDEN}
    ours = make("switch_encoder_decoder", **sizes, experts=EXPERTS, eval_capacity=None).build().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        ours.source.embedding.tokens.weight.copy_(theirs.shared.weight / DIM**0.5)  # ours scales where theirs divides
        for side, theirs_side in ((ours.source, theirs.encoder), (ours.target, theirs.decoder)):
            side.norm.weight.copy_(theirs_side.final_layer_norm.weight)
            bias = theirs_side.block[0].layer[0].SelfAttention.relative_attention_bias.weight
            for mine, block in zip(side.stack.blocks, theirs_side.block, strict=True):
                copy_block(mine, block, bias, head_dim)
        source, target = torch.randint(1, vocab, (2, 11)), torch.randint(1, vocab, (2, 7))
        mask = torch.arange(11)[None] < torch.tensor([11, 8])[:, None]
        expected = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
        torch.testing.assert_close(ours(source, target, source_mask=mask).logits, expected, atol=2e-4, rtol=1e-4)


def copy_block(mine: nn.Module, block: nn.Module, bias: torch.Tensor, head_dim: int) -> None:
    """Attention, cross-attention where there is one, and the feed-forward, each with its norm."""
    mine.sublayers[0].position.table.weight.copy_(bias)
    for norm, layer in zip(mine.residual.norms, block.layer, strict=True):
        norm.weight.copy_(layer.layer_norm.weight)
    for sublayer, layer in zip(mine.sublayers[:-1], block.layer[:-1], strict=True):
        crosses = hasattr(layer, "EncDecAttention")
        attention = layer.EncDecAttention if crosses else layer.SelfAttention
        for name in "qkvo":
            ours = getattr(sublayer.projection, "out_proj" if name == "o" else f"{name}_proj")
            scale = head_dim**0.5 if crosses and name == "q" else 1.0  # theirs divides no score
            ours.weight.copy_(getattr(attention, name).weight * scale)
    mlp, feed_forward = block.layer[-1].mlp, mine.sublayers[-1]
    if hasattr(mlp, "router"):
        copy_experts(mlp, feed_forward)
    else:
        feed_forward.up.weight.copy_(mlp.wi.weight)
        feed_forward.down.weight.copy_(mlp.wo.weight)
