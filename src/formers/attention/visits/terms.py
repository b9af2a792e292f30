"""A pattern as a union of terms, those together that are made of few blocks in one order of the tokens."""

from typing import NamedTuple

from torch import Tensor

from formers.attention.pattern import Both, Either, Pattern
from formers.places import Spots

MOST = 32  # terms; a pattern of more is planned as it stands


class Term(NamedTuple):
    """pattern: what is seen here. queries, keys: the parts of it by which they are sorted; None: as they stand.
    earlier: what terms before this one show already."""

    pattern: Pattern
    queries: Pattern | None
    keys: Pattern | None
    earlier: Pattern | None


def terms_of(pattern: Pattern, at: Spots, to: Spots) -> list[Term]:
    """The pattern at these places, cut up by the orders that its parts ask for. A pair counts in the first term alone."""
    by_order: dict[tuple[Pattern | None, Pattern | None], Pattern] = {}
    for product in _products(pattern):
        leaves = list(_leaves(product))
        queries = next((leaf for leaf in leaves if leaf.query_order(at) is not None), None)
        keys = next((leaf for leaf in leaves if leaf.key_order(to) is not None), None)
        known = by_order.get((queries, keys))
        by_order[queries, keys] = product if known is None else known | product
    found: list[Term] = []
    earlier: Pattern | None = None
    for (queries, keys), union in sorted(by_order.items(), key=_is_sorted):
        found.append(Term(union, queries, keys, earlier))
        earlier = union if earlier is None else earlier | union
    return found


def _is_sorted(item: tuple[tuple[Pattern | None, Pattern | None], Pattern]) -> bool:
    """Terms in the order of the sequence come first: what is left of the others is then cheap to tell."""
    return item[0] != (None, None)


def _products(pattern: Pattern) -> list[Pattern]:
    """Patterns without a union inside, whose union is this one."""
    if isinstance(pattern, Either):
        found = _products(pattern.left) + _products(pattern.right)
    elif isinstance(pattern, Both):
        found = [left & right for left in _products(pattern.left) for right in _products(pattern.right)]
    else:
        found = [pattern]
    return found if len(found) <= MOST else [pattern]


def _leaves(pattern: Pattern) -> list[Pattern]:
    if isinstance(pattern, (Both, Either)):
        return _leaves(pattern.left) + _leaves(pattern.right)
    return [pattern]


def order_of(part: Pattern | None, spots: Spots, *, queries: bool) -> Tensor | None:
    """The numbers (T,) to sort by."""
    if part is None:
        return None
    return part.query_order(spots) if queries else part.key_order(spots)
