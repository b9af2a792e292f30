"""RoFormer (Su et al. 2021, arXiv:2104.09864) as it is published: BERT, turned instead of added positions, no pooler."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.feedforward import MLP
from formers.head import MaskedLM
from formers.hub.bert import HEAD, RENAMED, encoder_rows, masked_lm_rows, masked_lm_ties, parts_of
from formers.hub.config import ACTIVATION, DEPTH, NUMBER, WHOLE, Alike, Fixed, Key
from formers.hub.constant import sinusoids
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.table import Constant, Table
from formers.init import Normal
from formers.model import Encoder
from formers.norm import LayerNorm
from formers.position import Rotary
from formers.residual import PostNorm

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 50_000),
    Key("hidden_size", "dim", WHOLE, 768),
    Key("num_hidden_layers", "blocks", DEPTH, 12),
    Key("num_attention_heads", "blocks[0].sublayers[0].heads", WHOLE, 12),
    Key("intermediate_size", "blocks[0].sublayers[1].hidden", WHOLE, 3072),
    Key("hidden_act", "blocks[0].sublayers[1].activation", ACTIVATION, "gelu"),
    Key("type_vocab_size", "embedding.segments", WHOLE, 2),
    Key("layer_norm_eps", "embedding.norm.eps", NUMBER, 1e-12),
    Key("hidden_dropout_prob", "embedding.dropout", NUMBER, 0.1),
    Key("attention_probs_dropout_prob", "blocks[0].sublayers[0].dropout", NUMBER, 0.1),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Alike("embedding_size", "hidden_size", "token vectors are as wide as the stream"),
    Fixed("rotary_value", False, "queries and keys are turned, values are not, as in the paper"),
    Fixed("tie_word_embeddings", True, "the masked-token head uses the table of token vectors"),
)


def weights(spec: Any) -> Table:
    """The table, with the angles of the rotary positions at this spec's head width."""
    head_dim = spec.dim // spec.blocks[0].sublayers[0].heads
    return Table(
        prefix="roformer.",
        rows=(*encoder_rows("roformer."), *masked_lm_rows()),
        ties=masked_lm_ties(),
        constants=(Constant("roformer.encoder.embed_positions.weight", sinusoids, head_dim),),
        renamed=RENAMED,
    )


def build(said: Mapping[str, Any], parts: Parts) -> Encoder:
    """The spec of a RoFormer."""
    norm, dropout = LayerNorm(said["layer_norm_eps"]), said["hidden_dropout_prob"]
    attention = Attention(
        said["num_attention_heads"],
        position=Rotary(pairing="adjacent"),
        dropout=said["attention_probs_dropout_prob"],
    )
    block = Block((attention, MLP(said["intermediate_size"], said["hidden_act"])), PostNorm(norm, dropout))
    return Encoder(
        "roformer",
        said["vocab_size"],
        said["hidden_size"],
        stack(block, times=said["num_hidden_layers"]),
        Embedding(None, said["type_vocab_size"], norm=norm, dropout=dropout),
        norm=None,
        head=MaskedLM(said["hidden_act"], said["layer_norm_eps"]) if HEAD in parts else None,
        init=Normal(said["initializer_range"]),
    )


ROFORMER = Format(
    "roformer",
    Encoder,
    KEYS,
    build,
    weights,
    architectures=(("RoFormerForMaskedLM", frozenset({HEAD})), ("RoFormerModel", NO_PARTS)),
    parts={HEAD: "cls.predictions."},
    parts_of=parts_of,
    rules=RULES,
    unsaid={"max_position_embeddings": 1536},
)
