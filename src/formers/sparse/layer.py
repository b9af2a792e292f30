"""What feed-forwards that choose among their units share: chunks, coins, choices that are kept, and their count."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Out
from formers.init import ResidualLinear
from formers.parts import Part, in_parts, pieces
from formers.products import Matrix
from formers.residual import dropout_problems
from formers.sparse.choosing import Coin
from formers.sparse.usage import RECORD, count_units, is_counted
from formers.spec.core import Site


class ChoosingLayer(nn.Module):
    """up (F, M) and down (M, F), of which a choice among `among` things decides what works.

    chunk: tokens of each row worked on at a time. dropout: rate at which features of the output are dropped, the same
    ones for all tokens.
    """

    def __init__(self, site: Site, hidden: int, among: int, dropout: float, chunk: int | None) -> None:
        super().__init__()
        self.path, self.among, self.rate, self.chunk = site.path, among, dropout, chunk
        self.record = RECORD + ".".join(map(str, site.path))
        self.up = Matrix(site.dim, hidden, bias=False)
        self.down = ResidualLinear(hidden, site.dim)

    def choose(self, x: Tensor, coin: Coin, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, M) -> the output (B, T, M), and the choices (B, T, K): `chosen`, where they are made already."""
        raise NotImplementedError

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        if self.chunk is None:
            return self._part(call, 0, slice(None), choices).run(x)
        parts = self._chunks(x.shape[1], self.chunk, call, choices)
        if len(parts) > 1:
            return in_parts(parts, x)
        out = parts[0].run(x)
        return out._replace(choices=(out.choices,))

    def parts(self, call: Call, choices: Any = None) -> list[Part] | None:
        """The chunks, each without recomputing."""
        return None if self.chunk is None else self._chunks(call.at.length, self.chunk, call, choices)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""

    def _chunks(self, length: int, chunk: int, call: Call, choices: Any) -> list[Part]:
        every = pieces(length, chunk)
        chosen = choices or (None,) * len(every)
        return [self._part(call, i, *one) for i, one in enumerate(zip(every, chosen, strict=True))]

    def _part(self, call: Call, number: int, rows: slice, chosen: Tensor | None) -> Part:
        """The work on some rows. Run a second time, as by a checkpoint, it chooses what it chose the first time."""

        def run(x: Tensor) -> Out:
            nonlocal chosen
            y, chosen = self.choose(x, Coin(call, (*self.path, number)), chosen)
            if self.training and self.rate:
                y = y * F.dropout(y.new_ones(y.shape[-1]), self.rate)
            records: dict[str, tuple[Tensor, ...]] = {}
            if is_counted(self.training, call):
                records[self.record] = (count_units(chosen, self.among, call, rows),)
            return Out(y, choices=chosen, records=records)

        return Part(rows, run)


def choosing_problems(temperature: float, dropout: float, chunk: int | None) -> Iterator[tuple[str, str]]:
    """What is wrong with the fields that such layers share."""
    if temperature < 0:
        yield f"a temperature is at least 0, got {temperature}", "temperature=0.1"
    yield from dropout_problems(dropout)
    if chunk is not None and chunk < 1:
        yield f"chunks of {chunk} tokens never come to an end", "chunk=1024"


def division_problems(hidden: int, parts: int, name: str) -> Iterator[tuple[str, str]]:
    """Hidden units must be cut into so many parts of equal size."""
    if hidden < 1 or hidden % parts:
        whole = max(1, round(hidden / parts)) * parts
        yield f"{hidden} hidden units cannot be cut into {name}", f"hidden={whole}"
