"""BLOOM (Le Scao et al. 2022, arXiv:2211.05100) as it is published: each head's query, key and value rows in turn."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.feedforward import MLP
from formers.head import Tied, Untied
from formers.hub.config import DEPTH, NUMBER, TIED, WHOLE, Fixed, Key, words
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.ours import ATTENTION, FEED_FORWARD, NORMS, q_k_v
from formers.hub.table import Row, Table, Tie
from formers.hub.transform import Interleaved
from formers.init import Normal
from formers.model import Decoder
from formers.norm import LayerNorm
from formers.position import ALiBi
from formers.residual import PreNorm

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 250_880),
    Key("hidden_size", "dim", WHOLE, 64, also=("n_embed",)),
    Key("n_layer", "blocks", DEPTH, 2, also=("num_hidden_layers",)),
    Key("n_head", "blocks[0].sublayers[0].heads", WHOLE, 8, also=("num_attention_heads",)),
    Key("layer_norm_epsilon", "norm.eps", NUMBER, 1e-5),
    Key("hidden_dropout", "blocks[0].residual.dropout", NUMBER, 0.0),
    Key("attention_dropout", "blocks[0].sublayers[0].dropout", NUMBER, 0.0),
    Key("tie_word_embeddings", "head", TIED, True),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Fixed(
        "apply_residual_connection_post_layernorm",
        False,
        "the stream goes past the norms of a pre-norm block unchanged",
    ),
)

# How it was trained, on how many machines, and how products were fused; the feed-forward is always 4 times as wide.
NOTES = words(
    "attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion n_inner offset_alibi pretraining_tp "
    "seq_length skip_bias_add skip_bias_add_qkv slow_but_exact"
)


def weights(spec: Any) -> Table:
    """The table, for the number of heads of this spec."""
    by_head = Interleaved(spec.blocks[0].sublayers[0].heads)
    return Table(
        prefix="transformer.",
        rows=(
            Row("transformer.word_embeddings.weight", "embedding.tokens.weight"),
            Row("transformer.word_embeddings_layernorm.*", "embedding.norm.*"),
            Row("transformer.h.{n}.input_layernorm.*", f"{NORMS}.0.*"),
            Row("transformer.h.{n}.self_attention.query_key_value.weight", q_k_v("weight"), by_head),
            Row("transformer.h.{n}.self_attention.query_key_value.bias", q_k_v("bias"), by_head),
            Row("transformer.h.{n}.self_attention.dense.*", f"{ATTENTION}.out_proj.*"),
            Row("transformer.h.{n}.post_attention_layernorm.*", f"{NORMS}.1.*"),
            Row("transformer.h.{n}.mlp.dense_h_to_4h.*", f"{FEED_FORWARD}.up.*"),
            Row("transformer.h.{n}.mlp.dense_4h_to_h.*", f"{FEED_FORWARD}.down.*"),
            Row("transformer.ln_f.*", "norm.*"),
            Row("lm_head.weight", "head.proj.weight"),
        ),
        ties=(Tie("lm_head.weight", "embedding.tokens.weight"),),
    )


def build(said: Mapping[str, Any], parts: Parts) -> Decoder:
    """The spec of a BLOOM."""
    dim, norm = said["hidden_size"], LayerNorm(said["layer_norm_epsilon"])
    attention = Attention(said["n_head"], position=ALiBi(), dropout=said["attention_dropout"])
    block = Block((attention, MLP(4 * dim, "gelu_tanh")), PreNorm(norm, said["hidden_dropout"]))
    return Decoder(
        "bloom",
        said["vocab_size"],
        dim,
        stack(block, times=said["n_layer"]),
        Embedding(norm=norm),
        norm,
        Tied() if said["tie_word_embeddings"] else Untied(),
        Normal(said["initializer_range"]),
    )


BLOOM = Format(
    "bloom",
    Decoder,
    KEYS,
    build,
    weights,
    architectures=(("BloomForCausalLM", NO_PARTS), ("BloomModel", NO_PARTS)),
    rules=RULES,
    notes=NOTES,
)
