"""What kinds of attention to an encoder's output share: something is made of that output once, and kept as the state."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.layer import LookedBack, finished
from formers.attention.project import Projection, ProjectionLayer
from formers.call import Call, Encoded, Out
from formers.spec.core import Site


def across_problems(name: str, projection: Projection, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a layer of that name and with its projection at a site."""
    if not site.encoder:
        yield "there is no encoder to attend to", f"put this decoder into an EncoderDecoder, or drop the {name}"
    if not projection.across:
        what = f"{projection!r} makes keys of the tokens that queries are made of, not of an encoder's output"
        yield what, "projection=SparseQueries()"


class AcrossLayer(nn.Module):
    """Queries by a `projection`, which subclasses set, and what they meet."""

    projection: ProjectionLayer

    def encoded(self, source: Encoded, call: Call) -> Any:
        """What queries meet, a state: made of an encoder's output."""
        raise NotImplementedError

    def heads(self, q: Tensor, met: Any, call: Call) -> Tensor:
        """What queries q (B, H, T, D) get, (B, H, T, D)."""
        raise NotImplementedError

    def records(self) -> dict[str, tuple[Tensor, ...]]:
        """As of an `Out`."""
        return {}

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        x, met, kept = self._recall(x, call, state)
        heads = self.heads(self.projection.queries(x), met, call)
        y, kept = finished(self.projection, heads, call, state, kept)
        return Out(y, kept if call.remember else None, records=self.records())

    def skip(self, x: Tensor, call: Call, state: Any = None) -> Any:
        """What was made of the encoder's output, which owes nothing to x, and what the projection remembers of x."""
        return self(x, call, state).state if self.projection.output_looks_back else self._recall(x, call, state)[2]

    def _recall(self, x: Tensor, call: Call, state: Any) -> tuple[Tensor, Any, Any]:
        """What queries are made of, what they meet, and what remains of x even if nobody attends."""
        if not self.projection.looks_back:
            met = self._made(call) if state is None else state
            return x, met, met
        tail, met, _ = state or LookedBack()
        met = self._made(call) if met is None else met
        x, tail = self.projection.prepare(x, call.at, tail)
        return x, met, LookedBack(tail, met)

    def _made(self, call: Call) -> Any:
        if call.encoded is None:
            raise ValueError("cross-attention was given neither an encoder's output nor the state of an earlier call")
        return self.encoded(call.encoded, call)
