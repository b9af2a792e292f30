"""Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344) as it is published: the post-norm Transformer of 2017."""

from collections.abc import Mapping
from typing import Any

from formers.attention import Attention, CrossAttention
from formers.block import Block, stack
from formers.embedding import Embedding
from formers.encoder_decoder import EncoderDecoder
from formers.feedforward import MLP
from formers.head import Tied
from formers.hub.config import ACTIVATION, DEPTH, FLAG, NUMBER, WHOLE, Alike, Fixed, Key
from formers.hub.constant import sinusoids
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.table import Constant, Row, Table, Tie
from formers.hub.transform import OneRow
from formers.init import Normal
from formers.model import Decoder, Encoder
from formers.position import Sinusoidal
from formers.residual import PostNorm

KEYS = (
    Key("vocab_size", "source.vocab", WHOLE, 58_101),
    Key("d_model", "source.dim", WHOLE, 1024, also=("hidden_size",)),
    Key("encoder_layers", "source.blocks", DEPTH, 12, also=("num_hidden_layers",)),
    Key("encoder_attention_heads", "source.blocks[0].sublayers[0].heads", WHOLE, 16, also=("num_attention_heads",)),
    Key("encoder_ffn_dim", "source.blocks[0].sublayers[1].hidden", WHOLE, 4096),
    Key("decoder_layers", "target.blocks", DEPTH, 12),
    Key("decoder_attention_heads", "target.blocks[0].sublayers[0].heads", WHOLE, 16),
    Key("decoder_ffn_dim", "target.blocks[0].sublayers[2].hidden", WHOLE, 4096),
    Key("activation_function", "source.blocks[0].sublayers[1].activation", ACTIVATION, "gelu"),
    Key("scale_embedding", "source.embedding.scaled", FLAG, False),
    Key("dropout", "source.embedding.dropout", NUMBER, 0.1),
    Key("attention_dropout", "source.blocks[0].sublayers[0].dropout", NUMBER, 0.0),
    Key("activation_dropout", "source.blocks[0].sublayers[1].dropout", NUMBER, 0.0),
    Key("init_std", None, NUMBER, 0.02),
)

_POST_NORM = "sublayers are normalised behind the sum, and nothing else is"

RULES = (
    Fixed("is_encoder_decoder", True, "it translates"),
    Fixed("share_encoder_decoder_embeddings", True, "one table of token vectors serves both sides here"),
    Fixed("tie_word_embeddings", True, "the head uses the table of token vectors"),
    Alike("decoder_vocab_size", "vocab_size", "one table of token vectors serves both sides here"),
    Fixed("normalize_before", False, _POST_NORM),
    Fixed("normalize_embedding", False, _POST_NORM),
    Fixed("add_final_layer_norm", False, _POST_NORM),
    Fixed("static_position_embeddings", True, "positions are sinusoids"),
    Fixed("extra_pos_embeddings", 0, "positions are counted from 0"),
    Fixed("encoder_layerdrop", 0, "no layer is left out in training; set it to 0 if you only decode"),
    Fixed("decoder_layerdrop", 0, "no layer is left out in training; set it to 0 if you only decode"),
)

SOURCE, TARGET = "source.stack.blocks.{n}", "target.stack.blocks.{n}"


def attention_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """The four products of an attention."""
    return tuple(Row(f"{theirs}.{name}.*", f"{ours}.{name}.*") for name in ("q_proj", "k_proj", "v_proj", "out_proj"))


WEIGHTS = Table(
    prefix="model.",
    rows=(
        Row("model.shared.weight", "source.embedding.tokens.weight"),
        *attention_rows("model.encoder.layers.{n}.self_attn", f"{SOURCE}.sublayers.0.projection"),
        Row("model.encoder.layers.{n}.self_attn_layer_norm.*", f"{SOURCE}.residual.norms.0.*"),
        Row("model.encoder.layers.{n}.fc1.*", f"{SOURCE}.sublayers.1.up.*"),
        Row("model.encoder.layers.{n}.fc2.*", f"{SOURCE}.sublayers.1.down.*"),
        Row("model.encoder.layers.{n}.final_layer_norm.*", f"{SOURCE}.residual.norms.1.*"),
        *attention_rows("model.decoder.layers.{n}.self_attn", f"{TARGET}.sublayers.0.projection"),
        Row("model.decoder.layers.{n}.self_attn_layer_norm.*", f"{TARGET}.residual.norms.0.*"),
        *attention_rows("model.decoder.layers.{n}.encoder_attn", f"{TARGET}.sublayers.1.projection"),
        Row("model.decoder.layers.{n}.encoder_attn_layer_norm.*", f"{TARGET}.residual.norms.1.*"),
        Row("model.decoder.layers.{n}.fc1.*", f"{TARGET}.sublayers.2.up.*"),
        Row("model.decoder.layers.{n}.fc2.*", f"{TARGET}.sublayers.2.down.*"),
        Row("model.decoder.layers.{n}.final_layer_norm.*", f"{TARGET}.residual.norms.2.*"),
        Row("final_logits_bias", "target.head.bias", OneRow()),
    ),
    ties=tuple(
        Tie(name, "source.embedding.tokens.weight")
        for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    ),
    constants=tuple(Constant(f"model.{side}.embed_positions.weight", sinusoids) for side in ("encoder", "decoder")),
)


def build(said: Mapping[str, Any], parts: Parts) -> EncoderDecoder:
    """The spec of a Marian."""
    residual, activation, inside = (
        PostNorm(dropout=said["dropout"]),
        said["activation_function"],
        said["attention_dropout"],
    )
    embedding = Embedding(Sinusoidal("halves"), scaled=said["scale_embedding"], dropout=said["dropout"])

    def feed_forward(side: str) -> MLP:
        return MLP(said[f"{side}_ffn_dim"], activation, dropout=said["activation_dropout"])

    heads = said["decoder_attention_heads"]
    reads = (Attention(said["encoder_attention_heads"], dropout=inside), feed_forward("encoder"))
    writes = (Attention(heads, dropout=inside), CrossAttention(heads, dropout=inside), feed_forward("decoder"))
    shape: dict[str, Any] = {"vocab": said["vocab_size"], "dim": said["d_model"], "embedding": embedding, "norm": None}
    shape["init"] = Normal(said["init_std"])
    source = stack(Block(reads, residual), times=said["encoder_layers"])
    target = stack(Block(writes, residual), times=said["decoder_layers"])
    return EncoderDecoder(
        "marian",
        Encoder("marian.source", blocks=source, **shape),
        Decoder("marian.target", blocks=target, head=Tied(bias=True), **shape),
    )


MARIAN = Format(
    "marian",
    EncoderDecoder,
    KEYS,
    build,
    lambda spec: WEIGHTS,
    architectures=(("MarianMTModel", NO_PARTS),),
    rules=RULES,
    notes=frozenset({"add_bias_logits"}),  # the bias is a tensor of its own, and always read
    unsaid={"max_position_embeddings": 1024, "decoder_start_token_id": None},
)
