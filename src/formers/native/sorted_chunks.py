"""Softmax attention over sorted chunks, forwards and backwards, on the CPU in fp32.

It is flash style: nothing of the size of the scores is stored, and the backward pass makes the weights again from the
log-sum-exps. Results do not depend on the number of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from formers.native import kept
from formers.native.library import RULES, Array, Problem, call, missing


class Rules(NamedTuple):
    """Which pairs meet, and their scores, in plain numbers.

    chunk: tokens in a chunk. A query's chunk meets `before` chunks on its left to `after` on its right, in its round.
    wrap: the chunk before the first of a round is the last of the round before, and the one after the last is the first
    of the next, cyclically. reach: only pairs less than so many slots apart, 0: any. same: only pairs of one bucket.
    once: a pair that met in an earlier round does not meet again; not together with wrap. causal: no key whose position
    is behind the query's. self_bias: added where positions are equal. scale: of the scores. rate: the share of weights
    that are dropped, by a hash of `seed` (0 to below 2^31), of the head and of the two tokens; not together with `beside`.
    """

    chunk: int
    before: int
    after: int
    wrap: bool
    reach: int
    same: bool
    once: bool
    causal: bool
    self_bias: float
    scale: float
    rate: float = 0.0
    seed: int = 0


def refuses(q: Tensor, k: Tensor, v: Tensor, rules: Rules) -> str | None:
    """Why the native kernels cannot run this, in words; None where they can."""
    for t in (q, k, v):
        if t.device.type != "cpu":
            return f"the native kernels run on the CPU, not on {t.device.type}"
        if t.dtype != torch.float32:
            return f"the native kernels compute in float32, not in {str(t.dtype).removeprefix('torch.')}"
    if q.shape != k.shape or q.shape[:3] != v.shape[:3]:
        return "the native kernels want as many queries as keys, and heads of each alike"
    if rules.once and rules.wrap:
        return "pairs that met in an earlier round cannot be told where rounds wrap"
    return missing()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    slot: Tensor,
    bucket: Tensor | None,
    pos: Tensor,
    real: Tensor | None,
    rules: Rules,
    *,
    beside: tuple[Tensor, Tensor] | None = None,
    threads: int | None = None,
    kernel: str | None = None,
) -> tuple[Tensor, Tensor]:
    """out (B, H, L, E) and the log-sum-exp of each query's scores (B, H, L); 0 and -inf where it meets nothing.

    One softmax runs over all pairs of a query in all rounds. q, k (B, H, L, D); v (B, H, L, E). Integers below 2^30:
    order, slot and bucket (1 or B, 1 or H, R, L) say the token in a slot, the slot of a token and its bucket;
    pos (1 or B, L). real: (1 or B, L), False at keys that nobody meets. beside: more keys and values, shaped as k and v:
    every chunk but the first also meets those at its own tokens; with one round, and neither reach nor same.
    threads: PyTorch's number if None. kernel: 'avx512', 'avx2' or 'plain'; the fastest if None.
    """
    out, lse = kept.empty_like(_rows(v)), q.new_empty(q.shape[:3])
    tensors = _inputs(q, k, v, order, slot, bucket, pos, real) | _beside(beside)
    _run("formers_forward", rules, threads, kernel, tensors | {"out": out, "lse": lse, "total": torch.empty_like(lse)})
    return out, lse


def backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    slot: Tensor,
    bucket: Tensor | None,
    pos: Tensor,
    real: Tensor | None,
    rules: Rules,
    *,
    beside: tuple[Tensor, Tensor] | None = None,
    threads: int | None = None,
    kernel: str | None = None,
) -> tuple[Tensor, ...]:
    """The gradients by q, k and v, and by what is beside, for one by `out` and what `forward` returned for the same."""
    grads = tuple(kept.empty_like(_rows(t)) for t in (q, k, v))
    grads_beside = tuple(_zero_first(torch.empty_like(_rows(t)), rules.chunk) for t in beside or ())
    results: dict[str, Tensor | None] = {
        "grad_q": grads[0],
        "grad_k": grads[1],
        "grad_v": grads[2],
        "delta": torch.empty_like(lse),
    }
    given: dict[str, Tensor | None] = {"grad": _rows(grad), "out": _rows(out), "lse": lse.contiguous()}
    tensors = _inputs(q, k, v, order, slot, bucket, pos, real) | _beside(beside) | _beside(grads_beside, "grad_")
    _run("formers_backward", rules, threads, kernel, tensors | given | results)
    return *grads, *grads_beside


def _inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    slot: Tensor,
    bucket: Tensor | None,
    pos: Tensor,
    real: Tensor | None,
) -> dict[str, Tensor | None]:
    """The tensors by their names in the C structure, each of full size and with a contiguous last dimension."""
    batch, heads, length = q.shape[:3]
    rounds = order.shape[-2]
    tokens: dict[str, Tensor | None] = {"q": _rows(q), "k": _rows(k), "v": _rows(v)}
    for name, index in (("order", order), ("slot", slot), ("bucket", bucket)):
        tokens[name] = None if index is None else _rows(index.int()).expand(batch, heads, rounds, length)
    tokens["position"] = _rows(pos.int()).expand(batch, length)
    tokens["real"] = None if real is None else _rows(real.bool()).expand(batch, length)
    return tokens


def _beside(pair: tuple[Tensor, ...] | None, kind: str = "") -> dict[str, Tensor | None]:
    return {f"{kind}beside_{name}": _rows(t) for name, t in zip("kv", pair or (), strict=False)}


def _zero_first(grad: Tensor, chunk: int) -> Tensor:
    """With 0 for what stands beside the first chunk, which nobody meets."""
    grad[:, :, :chunk] = 0
    return grad


def _rows(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def _run(
    function: str, rules: Rules, threads: int | None, kernel: str | None, tensors: dict[str, Tensor | None]
) -> None:
    q, v, order = tensors["q"], tensors["v"], tensors["order"]
    if q is None or v is None or order is None:
        raise TypeError("q, v and order are needed")
    batch, heads, length, dim = q.shape
    problem = Problem(batch, heads, order.shape[2], length, dim, v.shape[-1])
    for name in (*RULES, "self_bias", "scale", "rate", "seed"):
        setattr(problem, name, getattr(rules, name))
    for name, t in tensors.items():
        if t is not None:
            setattr(problem, name, _array(t))
    call(function, problem, kernel, threads or torch.get_num_threads())


def _array(t: Tensor) -> Array:
    """(B, H, rows, n), (B, H, n) or (B, n)."""
    strides = (*t.stride()[:-1], 0, 0)
    return Array(t.data_ptr(), strides[0], strides[1], strides[2])
