"""Big Bird (Zaheer et al. 2020, arXiv:2007.14062) as it is published: BERT whose attention is sparse, or full.

What a checkpoint means here. With attention_type "original_full" it is BERT, and every text gives what `transformers`
gives. With "block_sparse" it is a model of max_position_embeddings tokens whose layers see what they were trained to see
at that length: the window, the first and the last block of that length, and the very blocks that the published code draws
(`PublishedBlocks`). That is what `transformers` computes in training, at that length, but for dropout. Elsewhere it
computes something else, each of which is a fault of that code and none of the paper's model:

- in evaluation it draws no blocks and counts the first block 1 + num_random_blocks times;
- in texts of up to 5 + 2 num_random_blocks blocks, and from then on, it attends to everything, so that a model which has
  no longer positions never is sparse at all, and is read as full;
- in shorter texts than the longest it draws anew, and makes the last block of the batch global, be it padding or not.

For the full attention of short texts, let config.json say "original_full". In training two things differ: it drops out
the embedding before the norm and no attention weights, and here it is after the norm and both.
"""

from collections.abc import Mapping
from typing import Any

from formers.attention import Blocks, Global, Pattern, PublishedBlocks
from formers.hub.bert import (
    CLASSES,
    HEAD,
    KEYS,
    POOLER,
    RENAMED,
    encoder_rows,
    masked_lm_rows,
    masked_lm_ties,
    parts_of,
)
from formers.hub.bert import build as build_bert
from formers.hub.config import FLAG, Fixed, Key, Kind
from formers.hub.format import NO_PARTS, POSITIONS, Format, Parts
from formers.hub.table import Row, Table
from formers.model import Encoder
from formers.spec.core import parts_within

FULL, SPARSE = "original_full", "block_sparse"


def drawn_by(spec: Any) -> list[PublishedBlocks]:
    """The random blocks of the first layer, in a list that is empty where it has none."""
    return [part for part in parts_within(spec.blocks[:1]) if isinstance(part, PublishedBlocks)]


def is_whole(value: Any) -> bool:
    """Is it a whole number that can count something?"""
    return type(value) is int and value > 0


TYPE = Kind(
    f"{FULL} or {SPARSE}",
    lambda value: value in (FULL, SPARSE),
    theirs=lambda spec: SPARSE if drawn_by(spec) else FULL,
)
SIZE = Kind("a whole number from 1 on", is_whole, theirs=lambda spec: drawn_by(spec)[0].size)
COUNT = Kind("a whole number from 1 on", is_whole, theirs=lambda spec: drawn_by(spec)[0].count)

DEFAULTS = {"vocab_size": 50_358, "hidden_act": "gelu_tanh", POSITIONS: 4096}
OWN_KEYS = (
    Key("rescale_embeddings", "embedding.scaled", FLAG, False),
    Key("attention_type", "", TYPE, SPARSE),
    Key("block_size", "", SIZE, 64),
    Key("num_random_blocks", "", COUNT, 3),
)
RULES = (
    Fixed("use_bias", True, "queries, keys and values have biases wherever the output has one"),
    Fixed("tie_word_embeddings", True, "the masked-token head uses the table of token vectors"),
)

WEIGHTS = Table(
    prefix="bert.",
    rows=(
        *encoder_rows("bert."),
        Row("bert.embeddings.position_embeddings.weight", "embedding.position.table.weight"),
        Row("bert.pooler.*", "pooler.proj.*"),
        Row("cls.seq_relationship.*", "pooler.classes.*"),
        *masked_lm_rows(),
    ),
    ties=masked_lm_ties(),
    ignored=("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),
    renamed=RENAMED,
)


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of a Big Bird."""
    bert = build_bert(said, parts)
    embedding = bert.embedding.replace(scaled=said["rescale_embeddings"])
    blocks = []
    for layer, block in enumerate(bert.blocks):
        attention, feed_forward = block.sublayers  # type: ignore[attr-defined]
        sees = attention.replace(pattern=pattern(said, attention.heads, layer))
        blocks.append(block.replace(sublayers=(sees, feed_forward)))
    spec: Encoder = bert.replace(name="big_bird", embedding=embedding, blocks=tuple(blocks))
    return spec


def pattern(said: Mapping[str, Any], heads: int, layer: int) -> Pattern | None:
    """What a layer sees; None: everything."""
    size, count, length = said["block_size"], said["num_random_blocks"], said[POSITIONS]
    blocks = -(-length // size)
    if said["attention_type"] == FULL or blocks <= 5 + 2 * count:
        return None
    near = Blocks(size, 1, 1) | Global(size) | Global(size, first=(blocks - 1) * size)
    return near | PublishedBlocks(size, count, heads, length=length, seed=layer)


BIG_BIRD = Format(
    "big_bird",
    Encoder,
    (*(Key(key.name, key.path, key.kind, DEFAULTS.get(key.name, key.default)) for key in KEYS), *OWN_KEYS),
    build,
    lambda spec: WEIGHTS,
    architectures=(
        ("BigBirdForMaskedLM", frozenset({HEAD, POOLER})),
        ("BigBirdForMaskedLM", frozenset({HEAD})),
        ("BigBirdForPreTraining", frozenset({HEAD, POOLER, CLASSES})),
        ("BigBirdModel", frozenset({POOLER})),
        ("BigBirdModel", NO_PARTS),
    ),
    parts={HEAD: "cls.predictions.", POOLER: "pooler.", CLASSES: "cls.seq_relationship."},
    parts_of=parts_of,
    rules=RULES,
)
