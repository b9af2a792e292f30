"""Where in a model the keys are: what its last feed-forward reads, after the norm."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from formers.errors import ConfigError
from formers.feedforward import FeedForwardLayer
from formers.model import Decoder
from formers.reversible.spec import ReversibleLayer
from formers.sparse.layer import ChoosingLayer

FEED_FORWARD = "input of the last feed-forward"
LAST_HIDDEN = "last hidden state, for there is no feed-forward"


class Tap:
    """Reads the key of each token off a model while it runs. Khandelwal et al. 2019, arXiv:1911.00172, section 5.

    The key is what the last feed-forward of the depth reads: behind its norm where that stands before it, and behind the
    norm of what comes before it where norms stand behind. A model without a feed-forward gives its last hidden state, as
    its head reads it. `place` says which of the two, and `dim` how wide it is. The model is watched while `open` is, and
    not changed.

    Raises ConfigError for what is no decoder.
    """

    def __init__(self, model: nn.Module) -> None:
        spec: Any = model.spec
        if not isinstance(spec, Decoder):
            raise ConfigError(
                f"{spec.name} is no causal language model, so no context of it ends before a next token: take a decoder"
            )
        self._model: Any = model
        self._watched, self._reads_input = _last_feed_forward(model)
        self.place = LAST_HIDDEN if self._watched is None else FEED_FORWARD
        self.dim = spec.out_dim if self._watched is None else spec.dim
        self._seen: list[Tensor] = []

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        """While this is open, `take` follows each call of the model."""
        if self._watched is None:
            yield self
        else:
            with self._hooked(self._watched):
                yield self
        self._seen.clear()

    def take(self, out: Any) -> Tensor:
        """The keys (B, T, M) of the tokens of the last call, which gave `out`."""
        if self._watched is None:
            hidden: Tensor = out.hidden
            return hidden
        keys = torch.cat(self._seen, 1)  # a layer may be run on pieces of the sequence
        self._seen.clear()
        return keys

    @contextmanager
    def _hooked(self, watched: nn.Module) -> Iterator[None]:
        if self._reads_input:
            handle = watched.register_forward_pre_hook(lambda _, given: self._seen.append(given[0].detach()))
        else:
            handle = watched.register_forward_hook(lambda _, given, out: self._seen.append(out.detach()))
        try:
            yield
        finally:
            handle.remove()


def _last_feed_forward(model: nn.Module) -> tuple[nn.Module | None, bool]:
    """What to watch, and whether its input is wanted or its output: a reversible stack may run a feed-forward by its
    chunks, and there the norm before it is watched."""
    stack: Any = model.stack
    last = None
    for module in stack.modules():
        if isinstance(module, (FeedForwardLayer, ChoosingLayer)):
            last = module
    for reversible in (module for module in stack.modules() if isinstance(module, ReversibleLayer)):
        blocks: Any = reversible.blocks
        for block in blocks:
            for norm, layer in zip(block.residual.norms, block.sublayers, strict=True):
                if layer is last:
                    return norm, False
    return last, True
