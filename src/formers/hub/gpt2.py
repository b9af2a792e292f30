"""GPT-2 (Radford et al. 2019) as it is published: matrices of its Conv1D stand transposed, q, k and v are fused."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.feedforward import MLP
from formers.head import Tied, Untied
from formers.hub.config import ACTIVATION, DEPTH, NUMBER, TIED, WHOLE, Fixed, Key, words
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.ours import ATTENTION, FEED_FORWARD, NORMS, q_k_v
from formers.hub.table import Row, Table, Tie
from formers.hub.transform import Thirds, Transposed, TransposedThirds
from formers.init import Normal
from formers.model import Decoder
from formers.norm import LayerNorm
from formers.position import Learned
from formers.residual import PreNorm

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 50_257),
    Key("n_embd", "dim", WHOLE, 768, also=("hidden_size",)),
    Key("n_layer", "blocks", DEPTH, 12, also=("num_hidden_layers",)),
    Key("n_head", "blocks[0].sublayers[0].heads", WHOLE, 12, also=("num_attention_heads",)),
    Key("n_inner", "blocks[0].sublayers[1].hidden", WHOLE),
    Key("n_positions", "embedding.position.length", WHOLE, 1024, also=("max_position_embeddings",)),
    Key("activation_function", "blocks[0].sublayers[1].activation", ACTIVATION, "gelu_new"),
    Key("layer_norm_epsilon", "norm.eps", NUMBER, 1e-5),
    Key("embd_pdrop", "embedding.dropout", NUMBER, 0.1),
    Key("attn_pdrop", "blocks[0].sublayers[0].dropout", NUMBER, 0.1),
    Key("resid_pdrop", "blocks[0].residual.dropout", NUMBER, 0.1),
    Key("tie_word_embeddings", "head", TIED, True),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Fixed("scale_attn_weights", True, "scores are divided by the root of the head width"),
    Fixed("scale_attn_by_inverse_layer_idx", False, "all blocks scale their scores alike"),
)

# Summaries belong to heads that are no part of the language model; n_ctx is n_positions again; the last one
# changes how scores are rounded in half precision, not what they are.
NOTES = words(
    "n_ctx reorder_and_upcast_attn summary_activation summary_first_dropout summary_proj_to_labels summary_type "
    "summary_use_proj"
)

WEIGHTS = Table(
    prefix="transformer.",
    rows=(
        Row("transformer.wte.weight", "embedding.tokens.weight"),
        Row("transformer.wpe.weight", "embedding.position.table.weight"),
        Row("transformer.h.{n}.ln_1.*", f"{NORMS}.0.*"),
        Row("transformer.h.{n}.attn.c_attn.weight", q_k_v("weight"), TransposedThirds()),
        Row("transformer.h.{n}.attn.c_attn.bias", q_k_v("bias"), Thirds()),
        Row("transformer.h.{n}.attn.c_proj.weight", f"{ATTENTION}.out_proj.weight", Transposed()),
        Row("transformer.h.{n}.attn.c_proj.bias", f"{ATTENTION}.out_proj.bias"),
        Row("transformer.h.{n}.ln_2.*", f"{NORMS}.1.*"),
        Row("transformer.h.{n}.mlp.c_fc.weight", f"{FEED_FORWARD}.up.weight", Transposed()),
        Row("transformer.h.{n}.mlp.c_fc.bias", f"{FEED_FORWARD}.up.bias"),
        Row("transformer.h.{n}.mlp.c_proj.weight", f"{FEED_FORWARD}.down.weight", Transposed()),
        Row("transformer.h.{n}.mlp.c_proj.bias", f"{FEED_FORWARD}.down.bias"),
        Row("transformer.ln_f.*", "norm.*"),
        Row("lm_head.weight", "head.proj.weight"),
    ),
    ties=(Tie("lm_head.weight", "embedding.tokens.weight"),),
    ignored=("transformer.h.{n}.attn.bias", "transformer.h.{n}.attn.masked_bias"),  # the causal mask, and its -10000
)


def build(said: Mapping[str, Any], parts: Parts) -> Decoder:
    """The spec of a GPT-2."""
    dim, norm = said["n_embd"], LayerNorm(said["layer_norm_epsilon"])
    attention = Attention(said["n_head"], dropout=said["attn_pdrop"])
    feed_forward = MLP(said["n_inner"] or 4 * dim, said["activation_function"])
    block = Block((attention, feed_forward), PreNorm(norm, said["resid_pdrop"]))
    return Decoder(
        "gpt2",
        said["vocab_size"],
        dim,
        stack(block, times=said["n_layer"]),
        Embedding(Learned(said["n_positions"]), dropout=said["embd_pdrop"]),
        norm,
        Tied() if said["tie_word_embeddings"] else Untied(),
        Normal(said["initializer_range"], depth_scaled=True),
    )


GPT2 = Format(
    "gpt2",
    Decoder,
    KEYS,
    build,
    lambda spec: WEIGHTS,
    architectures=(("GPT2LMHeadModel", NO_PARTS), ("GPT2Model", NO_PARTS)),
    rules=RULES,
    notes=NOTES,
)
