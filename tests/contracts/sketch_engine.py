"""Runs a flat list of operations, one token at a time, with NumPy alone: what a native engine would do."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sketch_lowering import Op

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda y: np.maximum(y, 0),
    "silu": lambda y: y / (1 + np.exp(-y)),
    "gelu": lambda y: y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2,
    "gelu_tanh": lambda y: y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))) / 2,
}


class Engine:
    """x is the stream, y what a sublayer works on; every attention has its cache. One sequence."""

    def __init__(self, ops: list[Op]) -> None:
        self.ops, self.at = ops, 0
        self.caches: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def step(self, token: int) -> np.ndarray:
        """The logits (V,) after this token."""
        x = y = np.empty(0)
        for number, (name, arrays, given) in enumerate(self.ops):
            if name == "embed":
                x = arrays[0][token]
            elif name == "place":
                x = x + arrays[0][self.at]
            elif name == "add":
                x = x + y
            elif name == "copy":
                y = x
            elif name == "layer_norm":
                centred = x - x.mean()
                y = centred / np.sqrt((centred**2).mean() + given[0]) * arrays[0]
                y = y + arrays[1] if arrays[1:] else y
            elif name == "rms_norm":
                y = x / np.sqrt((x**2).mean() + given[0]) * arrays[0]
            elif name == "linear":
                y = arrays[0] @ y
                y = y + arrays[1] if arrays[1:] else y
            elif name == "rotate":
                y = self.rotate(y, arrays[0], *given)
            elif name == "attend":
                y = self.attend(y, self.caches.setdefault(number, []), *given)
            elif given:
                gate, up = np.split(y, 2)
                y = ACTIVATIONS[name](gate) * up
            else:
                y = ACTIVATIONS[name](y)
        self.at += 1
        return y

    def rotate(self, y: np.ndarray, rates: np.ndarray, pairing: str, heads: int) -> np.ndarray:
        width, turn = 2 * len(rates), np.exp(1j * self.at * rates)
        turned, rest = y[: heads * width].reshape(heads, width), y[heads * width :]
        pairs = turned.reshape(heads, -1, 2) if pairing == "adjacent" else turned.reshape(heads, 2, -1).swapaxes(1, 2)
        both = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        pairs = np.stack([both.real, both.imag], -1)
        turned = pairs if pairing == "adjacent" else pairs.swapaxes(1, 2)
        return np.concatenate([turned.ravel(), rest])

    def attend(self, y: np.ndarray, cache: list[Any], heads: int, kv_heads: int, scale: float) -> np.ndarray:
        q, k, v = np.split(y.reshape(heads + 2 * kv_heads, -1), [heads, heads + kv_heads])
        cache.append((k, v))
        keys, values = (np.stack(each, 1).repeat(heads // kv_heads, 0) for each in zip(*cache, strict=True))
        scores = (keys @ q[..., None])[..., 0] * scale
        weights = np.exp(scores - scores.max(1, keepdims=True))
        return (weights[:, None] @ values / weights.sum(1)[:, None, None]).ravel()
