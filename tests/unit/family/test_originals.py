"""The originals against published code with copied weights, where the hub's weight maps do not hold them already."""

import pytest
import torch
from torch import nn

from formers import make
from formers.model import parameter_count
from formers.places import Places


def copy_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    q, k, v = theirs.in_proj_weight.chunk(3)
    q_bias, k_bias, v_bias = theirs.in_proj_bias.chunk(3)
    for module, weight, bias in (
        (ours.q_proj, q, q_bias),
        (ours.k_proj, k, k_bias),
        (ours.v_proj, v, v_bias),
        (ours.out_proj, theirs.out_proj.weight, theirs.out_proj.bias),
    ):
        module.weight.data.copy_(weight)
        module.bias.data.copy_(bias)


def copy_layer(theirs: nn.Module, ours: nn.Module, attentions: list[str]) -> None:
    for i, name in enumerate(attentions):
        copy_attention(getattr(theirs, name), ours.sublayers[i].projection)
    ours.sublayers[-1].up.load_state_dict(theirs.linear1.state_dict())
    ours.sublayers[-1].down.load_state_dict(theirs.linear2.state_dict())
    for i, norm in enumerate(ours.residual.norms, 1):
        norm.load_state_dict(getattr(theirs, f"norm{i}").state_dict())


def test_the_vanilla_transformer_is_pytorchs_without_its_last_norms() -> None:
    torch.manual_seed(0)
    theirs = nn.Transformer(32, 4, 2, 2, 48, dropout=0.0, batch_first=True).double().eval()
    theirs.encoder.norm = theirs.decoder.norm = None
    theirs.encoder.enable_nested_tensor = False
    ours = make("transformer", vocab=20, dim=32, depth=2, heads=4, hidden=48).build().double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for layer, block in zip(theirs.encoder.layers, ours.source.stack.blocks, strict=True):
        copy_layer(layer, block, ["self_attn"])
    for layer, block in zip(theirs.decoder.layers, ours.target.stack.blocks, strict=True):
        copy_layer(layer, block, ["self_attn", "multihead_attn"])
    source, target = torch.randint(0, 20, (3, 9)), torch.randint(0, 20, (3, 7))
    mask = torch.arange(9) < torch.tensor([[9], [4], [6]])

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        layer = ours.source.embedding
        return layer.tokens(tokens) * 32**0.5 + layer.position.vectors(Places.run(0, tokens.shape[1]), torch.float64)

    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    hidden = theirs(
        embed(source),
        embed(target),
        tgt_mask=later,
        src_key_padding_mask=~mask,
        memory_key_padding_mask=~mask,
    )
    out = ours(source, target, source_mask=mask)
    torch.testing.assert_close(out.hidden, hidden)
    torch.testing.assert_close(out.logits, hidden @ ours.source.embedding.tokens.weight.T)


def test_one_table_serves_source_target_and_head() -> None:
    model = make("transformer", vocab=20, dim=32, depth=1, heads=4, hidden=48).build()
    assert model.source.embedding.tokens.weight is model.target.embedding.tokens.weight
    assert [name for name, p in model.named_parameters() if p.shape == (20, 32)] == ["source.embedding.tokens.weight"]


def test_the_first_gpt_is_published_code() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.OpenAIGPTConfig(
        vocab_size=30, n_positions=16, n_embd=24, n_layer=2, n_head=3, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0
    )
    torch.manual_seed(0)
    theirs = transformers.OpenAIGPTLMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = make("gpt", vocab=30, dim=24, depth=2, heads=3, length=16).build().eval()
    trunk = theirs.transformer
    with torch.no_grad():
        ours.embedding.tokens.weight.copy_(trunk.tokens_embed.weight)
        ours.embedding.position.table.weight.copy_(trunk.positions_embed.weight)
        for layer, block in zip(trunk.h, ours.stack.blocks, strict=True):
            attention, feed_forward = block.sublayers
            projection = attention.projection
            parts = zip(layer.attn.c_attn.weight.chunk(3, 1), layer.attn.c_attn.bias.chunk(3), strict=True)
            for module, (weight, bias) in zip(
                (projection.q_proj, projection.k_proj, projection.v_proj), parts, strict=True
            ):
                module.weight.copy_(weight.T)
                module.bias.copy_(bias)
            for module, conv in (
                (projection.out_proj, layer.attn.c_proj),
                (feed_forward.up, layer.mlp.c_fc),
                (feed_forward.down, layer.mlp.c_proj),
            ):
                module.weight.copy_(conv.weight.T)
                module.bias.copy_(conv.bias)
            block.residual.norms[0].load_state_dict(layer.ln_1.state_dict())
            block.residual.norms[1].load_state_dict(layer.ln_2.state_dict())
    tokens = torch.randint(0, 30, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-4)


def test_gpt2_starts_with_scaled_residual_projections() -> None:
    torch.manual_seed(0)
    model = make("gpt2", vocab=50, dim=256, depth=8, heads=4, length=32).build()
    block = model.stack.blocks[0]
    assert block.sublayers[0].projection.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert block.sublayers[0].projection.out_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert block.sublayers[1].down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.03)
    assert model.embedding.position.table.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.sublayers[1].down.bias.any()


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpt2", 124_439_808), ("gpt", 116_534_784), ("llama", 6_738_415_616), ("bert", 109_514_298)],
)
def test_published_sizes(name: str, count: int) -> None:
    """Those of gpt2, openai-gpt, Llama-2-7b-hf and bert-base-uncased (masked LM, without pooler)."""
    with torch.device("meta"):
        assert parameter_count(make(name).build()) == count
