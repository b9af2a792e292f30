"""FNet (Lee-Thorp et al. 2021, arXiv:2105.03824) as it is published: BERT whose layers have a Fourier transform in place
of attention, and whose embeddings go through one more matrix.

Published models know no masks: padding is a token to them like any other, and what they give for a text depends on how far
it is padded. To get that, call without a mask. With one, each row gives what it gives alone (`Fourier`). Hybrids with
attention have no class there. In training one thing differs: they drop nothing of what the transform puts out, and here
the rate is that of the feed-forward.
"""

from collections.abc import Mapping
from typing import Any

from formers.block import Block, stack
from formers.embedding.projected import ProjectedEmbedding
from formers.feedforward import MLP
from formers.fourier import Fourier
from formers.head import MaskedLM, Pooler
from formers.hub.bert import CLASSES, HEAD, POOLER, masked_lm_rows, masked_lm_ties, parts_of
from formers.hub.bert import KEYS as BERT_KEYS
from formers.hub.config import Fixed, Key, words
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.ours import FEED_FORWARD, NORMS
from formers.hub.table import Row, Table
from formers.init import Normal
from formers.model import Encoder
from formers.norm import LayerNorm
from formers.position import Learned
from formers.residual import PostNorm

DEFAULTS = {"vocab_size": 32_000, "hidden_act": "gelu_tanh", "type_vocab_size": 4}
OF_ATTENTION = {"num_attention_heads", "attention_probs_dropout_prob"}
KEYS = tuple(
    Key(key.name, key.path, key.kind, DEFAULTS.get(key.name, key.default))
    for key in BERT_KEYS
    if key.name not in OF_ATTENTION
)
RULES = (
    Fixed(
        "use_tpu_fourier_optimizations",
        False,
        "its table of one length is cut for shorter texts, and gives something else than their transform",
    ),
    Fixed("tie_word_embeddings", True, "the masked-token head uses the table of token vectors"),
)
# How long inputs were in training, and how transforms were worked out.
NOTES = words("actual_seq_length tpu_short_seq_length use_fft use_latest")

LAYER = "fnet.encoder.layer.{n}"
WEIGHTS = Table(
    prefix="fnet.",
    rows=(
        Row("fnet.embeddings.word_embeddings.weight", "embedding.tokens.weight"),
        Row("fnet.embeddings.position_embeddings.weight", "embedding.position.table.weight"),
        Row("fnet.embeddings.token_type_embeddings.weight", "embedding.segments.weight"),
        Row("fnet.embeddings.LayerNorm.*", "embedding.norm.*"),
        Row("fnet.embeddings.projection.*", "embedding.proj.*"),
        Row(f"{LAYER}.fourier.output.LayerNorm.*", f"{NORMS}.0.*"),
        Row(f"{LAYER}.intermediate.dense.*", f"{FEED_FORWARD}.up.*"),
        Row(f"{LAYER}.output.dense.*", f"{FEED_FORWARD}.down.*"),
        Row(f"{LAYER}.output.LayerNorm.*", f"{NORMS}.1.*"),
        Row("fnet.pooler.dense.*", "pooler.proj.*"),
        Row("cls.seq_relationship.*", "pooler.classes.*"),
        *masked_lm_rows(),
    ),
    ties=masked_lm_ties(),
    ignored=("fnet.embeddings.position_ids", "fnet.embeddings.token_type_ids"),
)


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of an FNet."""
    eps, act, dropout = said["layer_norm_eps"], said["hidden_act"], said["hidden_dropout_prob"]
    norm = LayerNorm(eps)
    block = Block((Fourier(), MLP(said["intermediate_size"], act)), PostNorm(norm, dropout))
    positions = Learned(said["max_position_embeddings"])
    return Encoder(
        "fnet",
        said["vocab_size"],
        said["hidden_size"],
        stack(block, times=said["num_hidden_layers"]),
        ProjectedEmbedding(positions, said["type_vocab_size"], norm=norm, dropout=dropout),
        norm=None,
        head=MaskedLM(act, eps) if HEAD in parts else None,
        init=Normal(said["initializer_range"]),
        pooler=Pooler(2 if CLASSES in parts else None) if {POOLER, CLASSES} & parts else None,
    )


FNET = Format(
    "fnet",
    Encoder,
    KEYS,
    build,
    lambda spec: WEIGHTS,
    architectures=(
        ("FNetForMaskedLM", frozenset({HEAD, POOLER})),  # theirs always has one
        ("FNetForMaskedLM", frozenset({HEAD})),
        ("FNetForPreTraining", frozenset({HEAD, POOLER, CLASSES})),
        ("FNetForNextSentencePrediction", frozenset({POOLER, CLASSES})),
        ("FNetModel", frozenset({POOLER})),
        ("FNetModel", NO_PARTS),
    ),
    parts={HEAD: "cls.predictions.", POOLER: "pooler.dense.", CLASSES: "cls.seq_relationship."},
    parts_of=parts_of,
    rules=RULES,
    notes=NOTES,
)
