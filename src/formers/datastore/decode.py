"""Writing with a datastore: a model whose neighbours are mixed in, and one that takes in what they were followed by."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from formers.datastore.evaluate import MIX, NEIGHBOURS, Search
from formers.datastore.found import distribution, require_mix
from formers.datastore.keys import Tap
from formers.datastore.store import Datastore
from formers.tokens import chosen


class NearestNeighbours(nn.Module):
    """A decoder whose next token is also told by the neighbours of its context: kNN-LM, arXiv:1911.00172.

    It decodes as the model does, and has no parameters beside the model's. `step` gives the logarithm of the mixture in
    place of logits.
    """

    def __init__(
        self, model: nn.Module, store: Datastore, search: Search, k: int = NEIGHBOURS, mix: float = MIX
    ) -> None:
        super().__init__()
        require_mix(mix)
        self.model, self.spec = model, model.spec
        self._tap, self._store, self._search, self._k, self._mix = Tap(model), store, search, k, mix

    def step(
        self,
        tokens: Tensor,
        state: Any,
        *,
        mask: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        logits_at: Any = slice(-1, None),
        seed: int = 0,
    ) -> Any:
        """As the model's own."""
        model: Any = self.model
        with self._tap.open() as tap:
            out = model.step(tokens, state, mask=mask, marks=marks, logits_at=logits_at, seed=seed)
            keys = tap.take(out)
        if logits_at is None:
            return out
        wanted = chosen(keys, logits_at)
        found = self._search(wanted.flatten(0, -2).float().cpu(), self._k, None)
        near = distribution(found, found.tokens(self._store.values), out.logits.shape[-1]).view(out.logits.shape)
        own = out.logits.double().softmax(-1)
        mixed = self._mix * near.to(own.device) + (1 - self._mix) * own
        return out._replace(logits=mixed.clamp(min=math.exp(-700)).log().to(out.logits.dtype))


class Two(NamedTuple):
    """What the model remembers, and what the model of the keys does."""

    own: Any
    keys: Any


class RetrievedTokens(nn.Module):
    """A decoder with a `RetrievalGate`, and the frozen model by whose keys its neighbours are found: SPALM,
    arXiv:2102.02557. Both read what is written."""

    def __init__(self, model: nn.Module, reader: nn.Module, store: Datastore, search: Search, k: int) -> None:
        super().__init__()
        self.model, self.reader, self.spec = model, reader, model.spec
        self._tap, self._store, self._search, self._k = Tap(reader), store, search, k

    def step(
        self,
        tokens: Tensor,
        state: Two | None,
        *,
        mask: Tensor | None = None,
        marks: Mapping[str, Tensor] | None = None,
        logits_at: Any = slice(-1, None),
        seed: int = 0,
    ) -> Any:
        """As the model's own."""
        model: Any = self.model
        reader: Any = self.reader
        own, read = state or Two(None, None)
        with self._tap.open() as tap:
            kept = reader.step(tokens, read, mask=mask, marks=marks, logits_at=None, seed=seed)
            keys = tap.take(kept)
        found = self._search(keys.flatten(0, -2).float().cpu(), self._k, None).tokens(self._store.values)
        near = found.view(*tokens.shape, -1).to(tokens.device)
        out = model.step(tokens, own, mask=mask, marks=marks, logits_at=logits_at, seed=seed, retrieved=near)
        return out._replace(state=Two(out.state, kept.state))
