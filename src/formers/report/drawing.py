"""Attention patterns as squares: queries down, keys across; each cell says how many of its pairs are seen."""

from dataclasses import dataclass

import torch
from rich.cells import cell_len
from rich.text import Text
from torch import Tensor

from formers.attention import Causal, Everything, Pattern
from formers.report.parts import Look
from formers.report.square import marks_of, shares
from formers.sides import GLOBAL, SEGMENT

CELLS = 32
WHOLE = 4096  # the longest sequence that is drawn as a whole

# Two characters a cell, since a character is twice as high as it is wide. From "none of its pairs" to "all".
GLYPHS = ("· ", "░░", "▒▒", "▓▓", "██")
PLAIN_GLYPHS = (". ", "::", "++", "%%", "##")


@dataclass(frozen=True)
class Square:
    """The pairs of `length` tokens. share: (C, C), the part of each cell's pairs that is seen. title: what it shows.

    names: of the tokens, where these are those of a text and each has a cell of its own. top: the share that is drawn
    darkest.
    """

    title: str
    length: int
    share: Tensor
    names: tuple[str, ...] = ()
    top: float = 1.0

    @property
    def cell(self) -> int:
        """Tokens along the side of a cell."""
        return -(-self.length // len(self.share))

    @property
    def scale(self) -> str:
        """What is drawn, in words."""
        if self.cell == 1:
            return f"{self.length} tokens" if self.names else f"the first {self.length} tokens"
        darkest = "" if self.top == 1 else f", the darkest of which shows {self.top:.0%} of its pairs"
        return f"{self.length:,} tokens, {self.cell} x {self.cell} to a cell{darkest}"


def squares(look: Look, length: int, cells: int = CELLS) -> list[Square]:
    """The square of a pattern, one for each kind of head: at the scale where it shows more than a plain triangle.

    That is the first `cells` tokens one by one, or else `length` tokens as a whole. None where content chooses the pairs:
    the pattern alone would be a wrong picture.
    """
    if look.by_content is not None:
        return []
    near = min(cells, length)
    share = shares(look.pattern, look.heads, near, near, example_marks(look.pattern, near))
    whole = min(length, WHOLE)
    if whole > near and _is_plain(share):
        wide = shares(look.pattern, look.heads, whole, cells, example_marks(look.pattern, whole))
        if not torch.equal(wide, _shrunk_like(share, whole, cells)):
            return _by_head(look, whole, wide)
    return _by_head(look, near, share)


def example_marks(pattern: Pattern, length: int) -> dict[str, Tensor]:
    """Marks of an example: of each 16 tokens, which are a segment, one stands in front and is global. Others are all 0."""
    first = -(-length // 17)
    tokens = torch.arange(length)
    examples = {
        GLOBAL: (tokens < first).long(),
        SEGMENT: torch.where(tokens < first, tokens, (tokens - first) * first // max(1, length - first)),
    }
    return dict.fromkeys(marks_of(pattern), torch.zeros_like(tokens)) | examples


def draw(square: Square, *, ascii_only: bool = False) -> Text:
    """The square as characters, with its title, what it shows, and its axes; a token with a name has it at its row."""
    glyphs: tuple[str, ...] = PLAIN_GLYPHS if ascii_only else GLYPHS
    if len(square.share) > CELLS:
        glyphs = tuple(glyph[0] for glyph in glyphs)
    levels = torch.where(square.share > 0, 1 + (square.share / square.top * (len(glyphs) - 2)).floor(), 0).long()
    lines = ["".join(glyphs[level] for level in row).rstrip() for row in levels.tolist()]
    text = Text.assemble((square.title, "bold"), f"\n{square.scale}; queries down, keys across\n")
    if not square.names:
        return text.append("\n".join(lines))
    wide = max(map(cell_len, square.names))
    names = [" " * (wide - cell_len(name)) + name for name in square.names]
    return text.append("\n".join(f"{name}  {line}" for name, line in zip(names, lines, strict=True)))


def _by_head(look: Look, length: int, share: Tensor) -> list[Square]:
    kinds: list[tuple[Tensor, list[int]]] = []
    for head, own in enumerate(share):
        alike = next((heads for other, heads in kinds if torch.equal(own, other)), None)
        if alike is None:
            kinds.append((own, [head]))
        else:
            alike.append(head)
    if len(kinds) == 1:
        return [Square(repr(look.pattern), length, share[0])]
    return [Square(_title(look.pattern, heads), length, own) for own, heads in kinds]


def _title(pattern: Pattern, heads: list[int]) -> str:
    """The pattern, as these heads have it where that is said in fewer words."""
    own = min((repr(pattern.at_head(heads[0])), repr(pattern)), key=len)
    return f"{own}, head{'s' if len(heads) > 1 else ''} {_listed(heads)}"


def _is_plain(share: Tensor) -> bool:
    """Is everything seen, or everything up to the diagonal?"""
    full = torch.ones_like(share)
    return torch.equal(share, full) or torch.equal(share, full.tril())


def _shrunk_like(share: Tensor, length: int, cells: int) -> Tensor:
    """What a plain square looks like at the scale of `length` tokens."""
    plain = Everything() if bool(share.all()) else Causal()
    return shares(plain, 1, length, cells).expand(len(share), -1, -1)


def _listed(heads: list[int]) -> str:
    return ", ".join(map(str, heads))
