"""nanoGPT's character model and its training loop as plain PyTorch has them: the rival that ours is held against.

Nothing of `formers` is used here, on purpose.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class CharacterSetting:
    """nanoGPT's published CPU setting: its README's command over config/train_shakespeare_char.py."""

    depth: int = 4
    heads: int = 4
    dim: int = 128
    length: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    peak: float = 1e-3
    floor: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate at a step counted from 0: linear warm-up, then a cosine from `peak` to `floor`."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + 0.5 * (1 + math.cos(math.pi * min(1.0, done))) * (self.peak - self.floor)


class PlainBlock(nn.Module):
    """Pre-norm attention and feed-forward, without biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.feedforward_norm = nn.LayerNorm(dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, M = x.shape
        q, k, v = (
            part.view(B, T, self.heads, M // self.heads).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).split(M, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, T, M))
        return x + self.down(F.gelu(self.up(self.feedforward_norm(x))))


class PlainGPT(nn.Module):
    """A GPT with learned positions and tied embeddings."""

    def __init__(self, setting: CharacterSetting, vocab: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, setting.dim)
        self.places = nn.Embedding(setting.length, setting.dim)
        self.blocks = nn.ModuleList(PlainBlock(setting.dim, setting.heads) for _ in range(setting.depth))
        self.norm = nn.LayerNorm(setting.dim, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_stream = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * setting.depth) if into_stream else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


class PlainLoop:
    """The plain loop: random windows of the text, AdamW, clipping; each call is one step."""

    def __init__(self, setting: CharacterSetting, vocab: int, text: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        self.setting, self.text, self.done = setting, text, 0
        self.model = PlainGPT(setting, vocab)
        matrices = [weight for weight in self.model.parameters() if weight.dim() >= 2]
        vectors = [weight for weight in self.model.parameters() if weight.dim() < 2]
        groups = [{"params": matrices, "weight_decay": setting.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=setting.peak, betas=setting.betas)
        self.draw = torch.Generator().manual_seed(seed)

    def __call__(self) -> None:
        setting, text = self.setting, self.text
        starts = torch.randint(len(text) - setting.length, (setting.batch,), generator=self.draw).tolist()
        inputs = torch.stack([text[start : start + setting.length] for start in starts])
        targets = torch.stack([text[start + 1 : start + 1 + setting.length] for start in starts])
        for group in self.optimizer.param_groups:
            group["lr"] = setting.rate(self.done)
        loss = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), setting.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
