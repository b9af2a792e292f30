"""A language model with a datastore beside it: how well it does."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from formers.data.tokenizer import Tokenizer
from formers.data.tokens import Ids
from formers.datastore.found import Found, best_mix, mixed_nats, probability, require_mix
from formers.datastore.index import Index, has_index
from formers.datastore.search import exact
from formers.datastore.store import Datastore
from formers.datastore.windows import Reading
from formers.errors import DataError
from formers.tasks.score import byte_count, score
from formers.train.task import Tick, untold

NEIGHBOURS = 32
MIX = 0.25  # the share that the paper found best within one domain

Search = Callable[[Tensor, int, Tensor | None], Found]


def search_of(store: Datastore, *, approximate: bool | None = None) -> Search:
    """How a store is searched: by its index if it has one (None), by that and nothing else, or exactly."""
    if has_index(store) if approximate is None else approximate:
        return Index(store).search
    return lambda queries, k, own: exact(store, queries, k, own)


class Compared:
    """What a model and its neighbours say of each token of a text: nats (N,), and probabilities (N,), float64."""

    def __init__(self, nats: Tensor, neighbours: Tensor) -> None:
        self.nats, self.neighbours = nats, neighbours

    def mixed(self, mix: float | None) -> tuple[Tensor, float]:
        """The nats of the mixture, and the mix. None: that of each half of the text is the best one of the other half, so
        that no token has a say in its own; their mean is told."""
        if mix is not None:
            require_mix(mix)
            return mixed_nats(self.nats, self.neighbours, mix), mix
        half = len(self.nats) // 2
        if half == 0:
            raise DataError("a mix is found on one half of the text for the other, and this text is a single token")
        halves = [slice(0, half), slice(half, None)]
        best = [best_mix(self.nats[part], self.neighbours[part]) for part in halves]
        nats = [
            mixed_nats(self.nats[part], self.neighbours[part], other)
            for part, other in zip(halves, best[::-1], strict=True)
        ]
        return torch.cat(nats), sum(best) / 2


def compare(
    store: Datastore, reading: Reading, search: Search, k: int, *, own: Tensor | None = None, tick: Tick = untold
) -> Compared:
    """Read a text and look up every context. own: (N,), the entry of each token that must not be found, or -1."""
    nats, near = [], []
    for piece in reading.pieces(scored=True):
        here = slice(piece.first, piece.first + len(piece.tokens))
        found = search(piece.keys, k, None if own is None else own[here])
        near.append(probability(found, found.tokens(store.values), piece.tokens))
        assert piece.nats is not None
        nats.append(piece.nats.double())
        tick(here.stop / reading.count)
    return Compared(torch.cat(nats), torch.cat(near))


def own_of(store: Datastore, reading: Reading, tokenizer: Tokenizer) -> Tensor | None:
    """The entry of each token of a text that is in the store itself; None where nothing of it is."""
    own = store.own_entries(reading.predicted, tokenizer.end)
    return torch.from_numpy(own) if (own >= 0).any() else None


def evaluate_with_store(
    model: nn.Module,
    store: Datastore,
    tokens: Ids,
    tokenizer: Tokenizer,
    *,
    k: int = NEIGHBOURS,
    mix: float | None = MIX,
    search: Search | None = None,
    tick: Tick = untold,
) -> dict[str, float]:
    """The figures of `score` for a model mixed with its neighbours, and for the model alone by the names "alone_...".

    Both read the text in the store's windows, so each token has a long context; the model's own figures are better for it
    than those of `evaluate_text`. mix: see `Compared.mixed`. "mix" tells it, and "own" how many tokens are entries of the
    store themselves, each of which was kept from finding itself. Raises DataError for a store of another model.
    """
    store.require(model, tokenizer)
    reading = reading_for(store, model, tokens, tokenizer)
    own = own_of(store, reading, tokenizer)
    compared = compare(store, reading, search or search_of(store), k, own=own, tick=tick)
    nats, mix = compared.mixed(mix)
    bytes_read = byte_count(reading.predicted, tokenizer)
    found = score(float(nats.sum()), reading.count, bytes_read)
    alone = score(float(compared.nats.sum()), reading.count, bytes_read)
    return (
        found
        | {f"alone_{name}": alone[name] for name in ("perplexity", "bits_per_byte") if name in alone}
        | {
            "mix": mix,
            "own": 0 if own is None else int((own >= 0).sum()),
        }
    )


def reading_for(store: Datastore, model: nn.Module, tokens: Ids, tokenizer: Tokenizer) -> Reading:
    """A text read as those of the store were."""
    header = store.header
    return Reading(model, tokens, start=tokenizer.end, length=header.length, overlap=header.overlap)
