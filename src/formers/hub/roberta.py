"""RoBERTa (Liu et al. 2019, arXiv:1907.11692) as it is published: BERT, but for its names and where positions begin.

Its table of positions begins with rows for padding, as many as the padding's id and one more; position 0 reads the next.
"""

from collections.abc import Mapping
from typing import Any

from formers.hub.bert import HEAD, POOLER, RENAMED, encoder_rows
from formers.hub.bert import KEYS as BERT_KEYS
from formers.hub.bert import build as build_bert
from formers.hub.config import WHOLE, Fixed, Key, Kind
from formers.hub.format import NO_PARTS, POSITIONS, Format, Parts
from formers.hub.table import Row, Table, Tie
from formers.hub.transform import Behind
from formers.model import Encoder

PADDING = 1  # the id of padding in every published model
ID = Kind("a whole number from 0 on", lambda value: type(value) is int and value >= 0)

LENGTH = Key(POSITIONS, "embedding.position.length", WHOLE, 512 - PADDING - 1)
PAD = Key("pad_token_id", None, ID, PADDING)
KEYS = (*(LENGTH if key.name == POSITIONS else key for key in BERT_KEYS), PAD)

RULES = (
    Fixed("position_embedding_type", "absolute", "relative positions are no part of its paper's model"),
    Fixed("tie_word_embeddings", True, "the masked-token head uses the table of token vectors"),
)


def weights(prefix: str, *more: Row) -> Table:
    """RoBERTa's table under another prefix. more: rows that a descendant adds."""
    return Table(
        prefix=prefix,
        rows=(
            *encoder_rows(prefix),
            *more,
            Row(
                f"{prefix}embeddings.position_embeddings.weight",
                "embedding.position.table.weight",
                Behind(PADDING + 1),
            ),
            Row(f"{prefix}pooler.dense.*", "pooler.proj.*"),
            Row("lm_head.dense.*", "head.proj.*"),
            Row("lm_head.layer_norm.*", "head.norm.*"),
            Row("lm_head.bias", "head.bias"),
        ),
        ties=(
            Tie("lm_head.decoder.weight", "embedding.tokens.weight"),
            Tie("lm_head.decoder.bias", "head.bias"),
        ),
        ignored=(f"{prefix}embeddings.position_ids", f"{prefix}embeddings.token_type_ids"),
        renamed=RENAMED,
    )


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of a RoBERTa."""
    spec: Encoder = build_bert(said, parts).replace(name="roberta")
    return spec


def parts_of(spec: Any) -> Parts:
    """The optional parts of an encoder."""
    has = {HEAD: spec.head, POOLER: spec.pooler}
    return frozenset(part for part, there in has.items() if there is not None)


def ahead(config: Mapping[str, Any]) -> int:
    """Rows of the position table before that of position 0."""
    pad: Any = config.get("pad_token_id")
    return int(pad) + 1 if ID.fits(pad) else PADDING + 1


def architectures(name: str) -> tuple[tuple[str, Parts], ...]:
    """The classes of a family, by the name that they begin with."""
    whole, bare = f"{name}ForMaskedLM", f"{name}Model"
    heads = frozenset({HEAD}), frozenset({HEAD, POOLER})
    return *((whole, parts) for parts in heads), (bare, frozenset({POOLER})), (bare, NO_PARTS)


PARTS = {HEAD: "lm_head.", POOLER: "pooler.dense."}

ROBERTA = Format(
    "roberta",
    Encoder,
    KEYS,
    build,
    lambda spec: weights("roberta."),
    architectures=architectures("Roberta"),
    parts=PARTS,
    parts_of=parts_of,
    rules=RULES,
    unsaid={"pad_token_id": PADDING},
    ahead=ahead,
)
