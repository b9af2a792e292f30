"""Models without weights of their own in the native engine: what a token of them costs, and what it would cost at least."""

from collections.abc import Sequence

from torch import nn

from formers.errors import FormersError
from formers.model import on_meta
from formers.native.engine import Engine, bandwidth, lower
from formers.native.engine.quantise import GROUPS
from formers.sparse.experts import BlockFFLayer, SwitchFFLayer
from formers.sparse.feedforward import SparseFFLayer
from formers.spec import Spec

PROMPT = 16
SCALE = 2  # bytes, one for each group of weights
BYTES = {"fp32": 4, "bf16": 2, "int8": 1 + SCALE / GROUPS["int8"], "int4": 0.5 + SCALE / GROUPS["int4"]}  # of a weight


def engine_of(spec: Spec, dtype: str) -> Engine:
    """The engine of a model with random weights: the time that a token takes does not depend on them."""
    return Engine(lower(on_meta(spec), dtype))


class Streams:
    """Streams that an engine writes, each behind a prompt of its own. threads: PyTorch's number if None."""

    def __init__(self, engine: Engine, streams: int = 1, count: int = 16, threads: int | None = None) -> None:
        self._session, self._count = engine.session(streams, threads=threads), count
        vocab = engine.program.vocab
        for stream in range(streams):
            self._session.read([(7 * stream + place) % vocab for place in range(PROMPT)], stream)
        self._last: Sequence[int] = [0] * streams

    def in_blocks(self) -> float:
        """Seconds of a token that are spent in blocks, while `count` more tokens are written."""
        with self._session.profiled() as spent:
            self()
        return sum(each.seconds for each in spent if each.label.startswith("BlockLayer")) / self._count

    def __call__(self) -> None:
        """Write `count` tokens behind each stream."""
        written = self._session.write(self._last, count=self._count)
        for tokens in written:
            require_length(len(tokens), self._count)
        self._last = [tokens[-1] for tokens in written]


def touched(spec: Spec) -> int:
    """How many weights a token meets: one row of the embedding, the active units of sparse layers, all of the rest."""
    model = on_meta(spec)
    met = sum(parameter.numel() for parameter in model.parameters())
    tables = [part for part in model.embedding.modules() if isinstance(part, nn.Embedding)]
    tied = model.head is not None and model.spec.head.tied
    for table in tables:
        if table is not model.embedding.tokens or not tied:
            met -= table.weight.numel() - table.weight.shape[1]
    for layer in model.modules():
        if isinstance(layer, (SparseFFLayer, BlockFFLayer, SwitchFFLayer)):
            units = layer.up.weight.numel() + layer.down.weight.numel()
            met -= units - units // layer.among
    return met


def machine_bandwidth(threads: int) -> float:
    """Bytes a second that a plain read of memory gets, through the engine's own threads."""
    return bandwidth(1 << 29, threads)


def require_length(written: int, wanted: int) -> None:
    """Refuse to time a run that stopped early: it would look fast."""
    if written != wanted:
        raise FormersError(f"{written} tokens were written where {wanted} are timed: the speeds mean nothing")
