"""BERT (Devlin et al. 2018, arXiv:1810.04805) as it is published, with or without its two heads and its pooler."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.feedforward import MLP
from formers.head import MaskedLM, Pooler
from formers.hub.config import ACTIVATION, DEPTH, NUMBER, WHOLE, Fixed, Key, words
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.ours import ATTENTION, FEED_FORWARD, NORMS
from formers.hub.table import Row, Table, Tie
from formers.init import Normal
from formers.model import Encoder
from formers.norm import LayerNorm
from formers.position import Learned
from formers.residual import PostNorm

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 30_522),
    Key("hidden_size", "dim", WHOLE, 768),
    Key("num_hidden_layers", "blocks", DEPTH, 12),
    Key("num_attention_heads", "blocks[0].sublayers[0].heads", WHOLE, 12),
    Key("intermediate_size", "blocks[0].sublayers[1].hidden", WHOLE, 3072),
    Key("hidden_act", "blocks[0].sublayers[1].activation", ACTIVATION, "gelu"),
    Key("max_position_embeddings", "embedding.position.length", WHOLE, 512),
    Key("type_vocab_size", "embedding.segments", WHOLE, 2),
    Key("layer_norm_eps", "embedding.norm.eps", NUMBER, 1e-12),
    Key("hidden_dropout_prob", "embedding.dropout", NUMBER, 0.1),
    Key("attention_probs_dropout_prob", "blocks[0].sublayers[0].dropout", NUMBER, 0.1),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Fixed("position_embedding_type", "absolute", "relative positions of BERT are no part of its paper's model"),
    Fixed("tie_word_embeddings", True, "the masked-token head uses the table of token vectors"),
)

# Of the Chinese BERT's config: they describe the pooler that every BERT has.
NOTES = words(
    "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type"
)

HEAD, POOLER, CLASSES = "head", "pooler", "classes"


def masked_lm_rows() -> tuple[Row, ...]:
    """BERT's head for masked tokens, which its descendants keep."""
    return (
        Row("cls.predictions.transform.dense.*", "head.proj.*"),
        Row("cls.predictions.transform.LayerNorm.*", "head.norm.*"),
        Row("cls.predictions.bias", "head.bias"),
    )


def masked_lm_ties() -> tuple[Tie, ...]:
    """The head's matrix and bias under their second names."""
    return (
        Tie("cls.predictions.decoder.weight", "embedding.tokens.weight"),
        Tie("cls.predictions.decoder.bias", "head.bias"),
    )


def encoder_rows(prefix: str) -> tuple[Row, ...]:
    """The embedding and the blocks of BERT, which its descendants keep."""
    layer = prefix + "encoder.layer.{n}"
    return (
        Row(f"{prefix}embeddings.word_embeddings.weight", "embedding.tokens.weight"),
        Row(f"{prefix}embeddings.token_type_embeddings.weight", "embedding.segments.weight"),
        Row(f"{prefix}embeddings.LayerNorm.*", "embedding.norm.*"),
        Row(f"{layer}.attention.self.query.*", f"{ATTENTION}.q_proj.*"),
        Row(f"{layer}.attention.self.key.*", f"{ATTENTION}.k_proj.*"),
        Row(f"{layer}.attention.self.value.*", f"{ATTENTION}.v_proj.*"),
        Row(f"{layer}.attention.output.dense.*", f"{ATTENTION}.out_proj.*"),
        Row(f"{layer}.attention.output.LayerNorm.*", f"{NORMS}.0.*"),
        Row(f"{layer}.intermediate.dense.*", f"{FEED_FORWARD}.up.*"),
        Row(f"{layer}.output.dense.*", f"{FEED_FORWARD}.down.*"),
        Row(f"{layer}.output.LayerNorm.*", f"{NORMS}.1.*"),
    )


# What TensorFlow's checkpoints, and those converted from them, call a norm's gain and shift.
RENAMED = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))

WEIGHTS = Table(
    prefix="bert.",
    rows=(
        *encoder_rows("bert."),
        Row("bert.embeddings.position_embeddings.weight", "embedding.position.table.weight"),
        Row("bert.pooler.dense.*", "pooler.proj.*"),
        Row("cls.seq_relationship.*", "pooler.classes.*"),
        *masked_lm_rows(),
    ),
    ties=masked_lm_ties(),
    ignored=("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),  # 0, 1, 2, ... and 0, 0, 0, ...
    renamed=RENAMED,
)


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of a BERT."""
    norm, dropout = LayerNorm(said["layer_norm_eps"]), said["hidden_dropout_prob"]
    attention = Attention(said["num_attention_heads"], dropout=said["attention_probs_dropout_prob"])
    block = Block((attention, MLP(said["intermediate_size"], said["hidden_act"])), PostNorm(norm, dropout))
    positions = Learned(said["max_position_embeddings"])
    return Encoder(
        "bert",
        said["vocab_size"],
        said["hidden_size"],
        stack(block, times=said["num_hidden_layers"]),
        Embedding(positions, said["type_vocab_size"], norm=norm, dropout=dropout),
        norm=None,
        head=MaskedLM(said["hidden_act"], said["layer_norm_eps"]) if HEAD in parts else None,
        init=Normal(said["initializer_range"]),
        pooler=Pooler(2 if CLASSES in parts else None) if {POOLER, CLASSES} & parts else None,
    )


def parts_of(spec: Any) -> Parts:
    """The optional parts of an encoder."""
    pooler = getattr(spec, "pooler", None)
    has = {HEAD: spec.head, POOLER: pooler, CLASSES: pooler and pooler.classes}
    return frozenset(part for part, there in has.items() if there is not None)


BERT = Format(
    "bert",
    Encoder,
    KEYS,
    build,
    lambda spec: WEIGHTS,
    architectures=(
        ("BertForMaskedLM", frozenset({HEAD})),
        ("BertForMaskedLM", frozenset({HEAD, POOLER})),
        ("BertForPreTraining", frozenset({HEAD, POOLER, CLASSES})),
        ("BertForNextSentencePrediction", frozenset({POOLER, CLASSES})),
        ("BertModel", frozenset({POOLER})),
        ("BertModel", NO_PARTS),
    ),
    parts={HEAD: "cls.predictions.", POOLER: "pooler.dense.", CLASSES: "cls.seq_relationship."},
    parts_of=parts_of,
    rules=RULES,
    notes=NOTES,
)
