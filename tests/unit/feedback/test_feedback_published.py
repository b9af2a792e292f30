"""The published package and ours are the same mechanism, where the package goes through tokens one by one."""

from typing import Any

import pytest
import torch
from torch import nn

from formers import MLP, Decoder, Feedback
from formers.head import Untied
from formers.residual import PreNorm

SHAPE = {"vocab": 11, "dim": 12, "depth": 3, "heads": 3, "hidden": 20, "reach": 5}


def twins() -> tuple[Any, Any]:
    """Ours, and the package's with the same numbers: its feed-forward is gated, its attention has one more bias and other
    positions, so those are replaced, and ours does not norm its memories."""
    published = pytest.importorskip("feedback_transformer_pytorch")
    vocab, dim, depth, heads, hidden, reach = SHAPE.values()
    torch.manual_seed(0)
    layers = Feedback(depth, heads, MLP(hidden, "relu"), reach, residual=PreNorm())
    ours = Decoder("twin", vocab, dim, (layers,), head=Untied(bias=True)).build().double().eval()
    theirs = published.FeedbackTransformer(
        num_tokens=vocab, dim=dim, depth=depth, mem_len=reach, seq_len=1, heads=heads, dim_head=dim // heads
    )
    theirs.double().eval()
    inside: Any = ours.stack.blocks[0]
    inside.norm = nn.Identity()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.4)
    nn.init.zeros_(inside.distances.weight)
    nn.init.zeros_(theirs.pos_emb.relative_attention_bias.weight)
    pairs = [
        (theirs.token_emb, ours.embedding.tokens),
        (theirs.to_logits[0], ours.norm),
        (theirs.to_logits[1], ours.head.proj),
    ]
    for (attention, feed_forward), reader in zip(theirs.layers, inside.layers, strict=True):
        net = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim)).double()
        feed_forward.fn.fn.net = net
        plain = attention.fn.fn.fn
        nn.init.zeros_(plain.to_out.bias)
        plain.to_out.weight.data = reader.out_proj.weight.data.clone()
        pairs += [(plain.to_q, reader.q_proj), (net[0], reader.feed_forward.up), (net[2], reader.feed_forward.down)]
        pairs += list(zip((attention.fn.fn.norm, feed_forward.fn.norm), reader.residual.norms, strict=True))
    for to, given in pairs:
        to.load_state_dict(given.state_dict())
    theirs.shared_kv_proj.weight.data = torch.cat([inside.k_proj.weight.data, inside.v_proj.weight.data])
    theirs.layer_weight.data = inside.shares.data.clone()
    return ours, theirs


def test_logits_and_gradients_are_those_of_the_package() -> None:
    ours, theirs = twins()
    tokens = torch.randint(11, (2, 14), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(tokens).logits, theirs(tokens))
    for model, found in ((ours, ours(tokens).logits), (theirs, theirs(tokens))):
        model.zero_grad()
        found.tanh().square().sum().backward()
    inside = ours.stack.blocks[0]
    assert inside.by_hand
    torch.testing.assert_close(inside.shares.grad, theirs.layer_weight.grad)
    keys_values = torch.cat([inside.k_proj.weight.grad, inside.v_proj.weight.grad])
    torch.testing.assert_close(keys_values, theirs.shared_kv_proj.weight.grad)
    torch.testing.assert_close(ours.embedding.tokens.weight.grad, theirs.token_emb.weight.grad)
