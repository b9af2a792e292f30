"""Datastores of contexts and what followed them: kNN-LM, Khandelwal et al. 2019, arXiv:1911.00172, and SPALM's input."""

from formers.datastore.decode import NearestNeighbours, RetrievedTokens
from formers.datastore.evaluate import compare, evaluate_with_store, reading_for, search_of
from formers.datastore.found import Found, best_mix, distribution, mixed_nats, probability
from formers.datastore.index import Index, build_index, extend_index
from formers.datastore.keys import Tap
from formers.datastore.search import exact
from formers.datastore.store import Datastore
from formers.datastore.windows import Reading
from formers.datastore.writing import add, build

__all__ = [
    "Datastore",
    "Found",
    "Index",
    "NearestNeighbours",
    "Reading",
    "RetrievedTokens",
    "Tap",
    "add",
    "best_mix",
    "build",
    "build_index",
    "compare",
    "distribution",
    "evaluate_with_store",
    "exact",
    "extend_index",
    "mixed_nats",
    "probability",
    "reading_for",
    "search_of",
]
