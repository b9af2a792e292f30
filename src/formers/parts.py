"""Parts: a layer's work cut into pieces that are done one after another, so that only one of them exists at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from formers.call import Call, Out, add_losses, add_records

# Stands for an output that is not kept.
NOTHING = torch.empty(0)


class Part(NamedTuple):
    """A share of a layer's work: `run` makes, of the tokens (B, T', M) in `rows` of its input, what is added there.

    A layer that works in parts has a method parts(call, choices) -> list[Part] | None; None: not in this call. Its
    output is the sum of its parts, and `choices` is a tuple with those that each part made. Parts with the same rows
    stand together, other rows have no token in common with them, and all rows together are the sequence in order. Parts
    continue no state and leave none: a layer that remembers has parts only where `call.remember` is False. Under autocast
    what several parts read may reach them in its lower precision, so they should begin with a product.
    """

    rows: slice
    run: Callable[[Tensor], Out]


def parts_of(layer: nn.Module, call: Call, past: Any = None, choices: Any = None) -> list[Part] | None:
    """The parts of a layer in this call, or None where it is run as a whole."""
    offered = getattr(layer, "parts", None)
    return None if offered is None or past is not None else offered(call, choices)


def pieces(length: int, size: int) -> list[slice]:
    """0 .. length in pieces of `size`, the last one perhaps shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def grouped(parts: Sequence[Part], length: int) -> Iterator[tuple[slice, list[Part]]]:
    """The different rows of a sequence of that length, in order, each with the parts that share them."""
    groups: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        start, stop, _ = part.rows.indices(length)
        groups.setdefault((start, stop), []).append(part)
    for (start, stop), alike in groups.items():
        yield slice(start, stop), alike


def in_parts(parts: Sequence[Part], x: Tensor) -> Out:
    """The layer's output for x (B, T, M), by its parts; with gradients, each is recomputed in the backward pass."""
    outs: list[Out] = []
    joined: list[Tensor] = []
    for rows, alike in grouped(parts, x.shape[1]):
        read, total = x[:, rows], None
        for part in alike:
            out = checkpoint(part.run, read, use_reentrant=False) if torch.is_grad_enabled() else part.run(read)
            total = out.y if total is None else total + out.y
            outs.append(without_y(out))
        if total is not None:
            joined.append(total)
    y = joined[0] if len(joined) == 1 else torch.cat(joined, 1)
    return together(outs)._replace(y=y)


def together(outs: Sequence[Out]) -> Out:
    """All but the output of several parts: choices and records side by side, losses summed by name."""
    choices = tuple(out.choices for out in outs)
    return Out(
        NOTHING,
        None,
        add_losses(*(out.losses for out in outs)),
        choices if any(choice is not None for choice in choices) else None,
        add_records(*(out.records for out in outs)),
    )


def without_y(out: Out) -> Out:
    """Everything else, so that the output itself is not kept."""
    return out._replace(y=NOTHING)
