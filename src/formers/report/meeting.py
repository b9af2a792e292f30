"""Which tokens of a text attention lets meet, where content chooses them: drawn, counted, and listed by bucket."""

from collections import Counter
from collections.abc import Sequence

from rich.cells import set_cell_size

from formers.attention import LSH
from formers.data.tokenizer import Tokenizer
from formers.report.drawing import CELLS, Square
from formers.report.selection import Selection
from formers.report.square import shares_of

SHORT = 64  # a text of so many tokens is drawn token by token
NAME = 12  # columns that the name of a token may take
GROUPS = 5  # buckets that are listed
KINDS = 8  # different tokens of a bucket that are listed


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """What each token adds to the text, in quotes; its bytes where it is no text by itself."""
    return [_piece(tokenizer, token) for token in tokens]


def square_of(selection: Selection, head: int, names: Sequence[str], cells: int = CELLS) -> Square:
    """The pairs that meet in a head: token by token in a short text, otherwise as so many cells."""
    length = len(names)
    title = f"{_title(selection)}, head {head}"
    pairs = selection.pairs(head)
    if length > SHORT:
        share = shares_of(pairs, length, min(cells, length))
        return Square(title, length, share, top=float(share.max()) or 1.0)
    return Square(title, length, shares_of(pairs, length, length), tuple(_cut(name) for name in names))


def told(selection: Selection, head: int, names: Sequence[str]) -> list[str]:
    """How many pairs meet, in this head and in all, and who fell into the largest buckets."""
    length, shown = len(names), selection.shown()
    counts = [len(selection.pairs(each)) for each in range(selection.heads)]
    met = counts[head]
    lines = [
        f"{met:,} pairs meet, {met / shown:.1%} of those that {selection.layer.pattern!r} shows: "
        f"{met / length:.1f} keys to a query, in the mean"
    ]
    if selection.heads > 1:
        lines.append("of each head: " + ", ".join(f"{count / shown:.1%}" for count in counts))
    groups = selection.groups(head)
    if groups:
        kind = "buckets of the first hash" if isinstance(selection.select, LSH) else "clusters"
        lines.append(f"the largest of {len(groups)} {kind}:")
        lines += [f"  {len(group):,} tokens: {_listed([names[token] for token in group])}" for group in groups[:GROUPS]]
    return lines


def _title(selection: Selection) -> str:
    pattern, select = selection.layer.pattern, selection.select
    if selection.plan is None:
        up_to = getattr(selection.layer.select, "plain_below", selection.at.length)
        return f"all that {pattern!r} shows: {select!r} chooses nothing in texts of up to {up_to:,} tokens"
    return f"{select!r} within {pattern!r}"


def _listed(names: list[str]) -> str:
    """Equal ones together, the most frequent first."""
    counted = Counter(names)
    some = [name if times == 1 else f"{name} x {times}" for name, times in counted.most_common(KINDS)]
    more = len(counted) - len(some)
    return ", ".join(some) + (f" and {more} others" if more else "")


def _piece(tokenizer: Tokenizer, token: int) -> str:
    text = tokenizer.decode([token])
    if text and "\ufffd" not in text:
        return repr(text)
    own = tokenizer.token_bytes(token)
    return repr(own)[1:] if own else f"<{token}>"


def _cut(name: str) -> str:
    return name if len(name) <= NAME else set_cell_size(name, NAME - 1) + "~"
