"""Linear attention by running sums: a layer of its own beside Attention. Performer, Choromanski et al. 2020, arXiv:2009.14794."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers import MLP, Attention, Block, Decoder, stack
from formers.attention import Dense
from formers.attention.layer import heads_inside
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.spec import Site
from formers.state import select, tensors


class SketchPerformer(Layer):
    """softmax(q k / sqrt(D)) as the mean of exp(w q - |q|^2 / 2) exp(w k - |k|^2 / 2) over random w: no T x S scores."""

    heads: int
    features: int = 16

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, None)

    def build(self, site: Site) -> nn.Module:
        return SketchPerformerLayer(self, self.inside(site))


class SketchSums(NamedTuple):
    """Of the keys so far, in units of exp(peak): sum of phi(k) v (B, H, F, D), of phi(k) (B, H, F); peak (B, H)."""

    values: Tensor
    weights: Tensor
    peak: Tensor


class SketchPerformerLayer(nn.Module):
    def __init__(self, spec: SketchPerformer, site: Site) -> None:
        super().__init__()
        self.spec, self.site = spec, site
        self.projection = Dense().build(site)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        q, (k, v) = self.projection.queries(x), self.projection.keys_values(x)
        w = self.directions(call).to(x)
        log_q, log_k = self.log_features(q, w), self.log_features(k, w)
        if call.at.real is not None:
            log_k = log_k.masked_fill(~call.at.real[:, None, :, None], float("-inf"))
        sums = self.begin(q, v) if state is None else state
        peak = torch.maximum(sums.peak, log_k.detach().amax((2, 3)))
        fade = (sums.peak - peak).exp()
        phi_q = (log_q - log_q.detach().amax(-1, keepdim=True)).exp()
        phi_k = (log_k - peak[..., None, None]).exp()
        weights = (sums.weights * fade[..., None])[:, :, None] + phi_k.cumsum(2)
        values = (sums.values * fade[..., None, None])[:, :, None] + (phi_k[..., None] * v[..., None, :]).cumsum(2)
        heads = (phi_q[..., None, :] @ values).squeeze(-2)
        total = (phi_q * weights).sum(-1, keepdim=True)
        y = self.projection.output(heads / total.masked_fill(total == 0, 1))
        return Out(y, SketchSums(values[:, :, -1], weights[:, :, -1], peak))

    def begin(self, q: Tensor, v: Tensor) -> SketchSums:
        batch, heads, count = *q.shape[:2], self.spec.features
        least = torch.finfo(q.dtype).min
        return SketchSums(
            v.new_zeros(batch, heads, count, v.shape[-1]),
            q.new_zeros(batch, heads, count),
            q.new_full((batch, heads), least),
        )

    def directions(self, call: Call) -> Tensor:
        """(H, F, D), orthogonal in blocks of D, as long as random ones: another draw is another seed of the call."""
        chance, shape = call.chance(self.site.path), (self.site.heads, self.spec.features, self.site.head_dim)
        drawn = torch.randn(shape, generator=chance)
        blocks = [torch.linalg.qr(block.mT).Q.mT for block in drawn.split(shape[-1], 1)]
        return torch.cat(blocks, 1) * torch.randn(shape, generator=chance).norm(dim=-1, keepdim=True)

    def log_features(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, H, T, D) -> (B, H, T, F)."""
        x = x * self.site.head_dim**-0.25
        return x @ w.mT - x.pow(2).sum(-1, keepdim=True) / 2


def layer(features: int = 16) -> nn.Module:
    built = SketchPerformer(2, features).build(Site(8, causal=True, path=(0, 0)))
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def decoder() -> nn.Module:
    return Decoder("performer", 11, 8, stack(Block((SketchPerformer(2), MLP(8))), times=2)).build(streaming=True)


def test_tends_to_softmax_as_features_grow() -> None:
    built, x, call = layer(4096), torch.randn(1, 12, 8), Call(Places.run(0, 12))
    exact = Attention(2).build(Site(8, causal=True))
    exact.load_state_dict(built.state_dict())
    error = (built(x, call).y - exact(x, call).y).abs().mean() / exact(x, call).y.abs().mean()
    assert error < 0.1


def test_steps_chunks_and_one_pass_agree() -> None:
    model, tokens = decoder(), torch.randint(11, (2, 15))
    whole = model(tokens).logits
    for sizes in ([1] * 15, [4, 1, 7, 3], [14, 1]):
        state, parts = None, []
        for part in tokens.split(sizes, 1):
            out = model(part, state)
            state = out.state
            parts.append(out.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert sum(t.numel() for t in tensors(state)) == sum(t.numel() for t in tensors(model(tokens[:, :2]).state))


def test_no_gradient_from_the_future_and_every_parameter_is_alive() -> None:
    model, tokens = decoder(), torch.randint(11, (1, 9))
    x = model.embedding.tokens(tokens).detach().requires_grad_()
    y = model.stack(x, Call(Places.run(0, 9))).y
    (grad,) = torch.autograd.grad(y[:, 4].sum(), x, retain_graph=True)
    assert grad[:, :5].any() and not grad[:, 5:].any()
    y.pow(2).sum().backward()
    assert all(
        p.grad is not None and p.grad.any() for n, p in model.stack.named_parameters() if not n.endswith("k_proj.bias")
    )


def test_padding_anywhere_and_choice_of_rows() -> None:
    model, tokens = decoder(), torch.randint(11, (1, 7))
    alone, noise = model(tokens).logits, torch.randint(11, (1, 3))
    left, right = torch.cat([noise, tokens], 1), torch.cat([tokens, noise], 1)
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, :3] = mask[1, 7:] = False
    out = model(torch.cat([left, right]), mask=mask)
    torch.testing.assert_close(out.logits[mask].view(2, 7, -1), alone.expand(2, -1, -1))
    swapped = model(tokens[:, :1].expand(2, 1), select(out.state, torch.tensor([1, 0]))).logits
    torch.testing.assert_close(swapped, model(tokens[:, :1], model(tokens).state).logits.expand(2, -1, -1))
