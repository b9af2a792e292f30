"""LLaMA (Touvron et al. 2023, arXiv:2302.13971) as it is published: both sides pair the halves of a head's channels."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention, Dense
from formers.block import Block, stack
from formers.feedforward import GLU
from formers.head import Tied, Untied
from formers.hub.config import ACTIVATION, DEPTH, FLAG, NUMBER, TIED, WHOLE, Fixed, Key
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.ours import ATTENTION, FEED_FORWARD, NORMS
from formers.hub.table import Row, Table, Tie
from formers.init import Normal
from formers.model import Decoder
from formers.norm import RMSNorm
from formers.position import Rotary
from formers.residual import PreNorm

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 32_000),
    Key("hidden_size", "dim", WHOLE, 4096),
    Key("num_hidden_layers", "blocks", DEPTH, 32),
    Key("num_attention_heads", "blocks[0].sublayers[0].heads", WHOLE, 32),
    Key("num_key_value_heads", "blocks[0].sublayers[0].kv_heads", WHOLE),
    Key("head_dim", "blocks[0].sublayers[0].head_dim", WHOLE),
    Key("intermediate_size", "blocks[0].sublayers[1].hidden", WHOLE, 11_008),
    Key("hidden_act", "blocks[0].sublayers[1].activation", ACTIVATION, "silu"),
    Key("rope_theta", "blocks[0].sublayers[0].position.theta", NUMBER, 10_000.0),
    Key("rms_norm_eps", "norm.eps", NUMBER, 1e-6),
    Key("attention_bias", "blocks[0].sublayers[0].projection.bias", FLAG, False),
    Key("mlp_bias", "blocks[0].sublayers[1].bias", FLAG, False),
    Key("attention_dropout", "blocks[0].sublayers[0].dropout", NUMBER, 0.0),
    Key("tie_word_embeddings", "head", TIED, False),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Fixed("rope_type", "default", "rotary angles are not rescaled for longer texts here"),
    Fixed("partial_rotary_factor", 1.0, "all channels of a head are turned"),
)

_PLAIN = ("rope_theta", "partial_rotary_factor")

WEIGHTS = Table(
    prefix="model.",
    rows=(
        Row("model.embed_tokens.weight", "embedding.tokens.weight"),
        Row("model.layers.{n}.input_layernorm.weight", f"{NORMS}.0.weight"),
        Row("model.layers.{n}.self_attn.q_proj.*", f"{ATTENTION}.q_proj.*"),
        Row("model.layers.{n}.self_attn.k_proj.*", f"{ATTENTION}.k_proj.*"),
        Row("model.layers.{n}.self_attn.v_proj.*", f"{ATTENTION}.v_proj.*"),
        Row("model.layers.{n}.self_attn.o_proj.*", f"{ATTENTION}.out_proj.*"),
        Row("model.layers.{n}.post_attention_layernorm.weight", f"{NORMS}.1.weight"),
        Row("model.layers.{n}.mlp.gate_proj.*", f"{FEED_FORWARD}.gate.*"),
        Row("model.layers.{n}.mlp.up_proj.*", f"{FEED_FORWARD}.up.*"),
        Row("model.layers.{n}.mlp.down_proj.*", f"{FEED_FORWARD}.down.*"),
        Row("model.norm.weight", "norm.weight"),
        Row("lm_head.weight", "head.proj.weight"),
    ),
    ties=(Tie("lm_head.weight", "embedding.tokens.weight"),),
    ignored=("model.layers.{n}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"),  # rope_theta says them
)


def flatten(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings as plain keys, whether they stand in rope_parameters, as today, or in rope_scaling."""
    flat = dict(config)
    nested: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        settings = flat.pop(name, None)
        nested |= settings if isinstance(settings, dict) else {}
    flat["rope_type"] = nested.pop("rope_type", nested.pop("type", "default"))
    if flat["rope_type"] != "default":  # it is refused, and what belongs to it goes with it
        return flat
    return flat | {name if name in _PLAIN else f"rope_parameters.{name}": value for name, value in nested.items()}


def build(said: Mapping[str, Any], parts: Parts) -> Decoder:
    """The spec of a LLaMA."""
    norm = RMSNorm(said["rms_norm_eps"])
    attention = Attention(
        said["num_attention_heads"],
        said["num_key_value_heads"],
        said["head_dim"],
        position=Rotary(said["rope_theta"]),
        projection=Dense(said["attention_bias"]),
        dropout=said["attention_dropout"],
    )
    feed_forward = GLU(said["intermediate_size"], said["hidden_act"], said["mlp_bias"])
    block = Block((attention, feed_forward), PreNorm(norm))
    return Decoder(
        "llama",
        said["vocab_size"],
        said["hidden_size"],
        stack(block, times=said["num_hidden_layers"]),
        norm=norm,
        head=Tied() if said["tie_word_embeddings"] else Untied(),
        init=Normal(said["initializer_range"]),
    )


LLAMA = Format(
    "llama",
    Decoder,
    KEYS,
    build,
    lambda spec: WEIGHTS,
    architectures=(("LlamaForCausalLM", NO_PARTS), ("LlamaModel", NO_PARTS)),
    rules=RULES,
    notes=frozenset({"pretraining_tp"}),  # how the products were split over machines
    unsaid={"max_position_embeddings": 2048},
    flatten=flatten,
)
