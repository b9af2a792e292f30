"""Reformer (Kitaev et al. 2020, arXiv:2001.04451) as it is published: a reversible decoder of hashing and local layers.

What `transformers` does with these weights differs from what is done here in four places, all told in the tests:
version 5 leaves out the bias of the head; a sequence is filled up to a multiple of all chunks, which moves the chunk that
the first one of a round wraps to; local chunks are counted with padding in front; and where num_buckets is not said, the
first sequence that a model meets decides it for all later ones.
"""

from collections.abc import Callable, Mapping
from typing import Any

from formers.attention import LSH
from formers.block import Block
from formers.embedding import Embedding
from formers.family.content import local_attention, lsh_attention
from formers.feedforward import MLP
from formers.head import Untied
from formers.hub.config import ACTIVATION, FLAG, NUMBER, WHOLE, Fixed, Key, Kind, find, words
from formers.hub.format import NO_PARTS, Format, Parts
from formers.hub.table import Row, Table, Tie
from formers.hub.transform import Axis
from formers.init import Normal
from formers.model import Decoder
from formers.norm import LayerNorm
from formers.position import Axial, Learned
from formers.residual import PreNorm
from formers.reversible import Reversible

HEAD, LOCAL, HASHING = "head", "local", "lsh"
DEPTH = "blocks[0].blocks"


def layer_of(block: Any) -> str:
    """What a block's attention is called in attn_layers. Raises LookupError where there is none."""
    return HASHING if getattr(find(block, "sublayers[0]"), "select", None) else LOCAL


def of_first(layer: str, path: str, kind: Kind) -> Kind:
    """What the attention of the first block of a kind says, for all of them."""

    def theirs(spec: Any) -> Any:
        for block in find(spec, DEPTH):
            if layer_of(block) == layer:
                said = find(block, f"sublayers[0].{path}")
                return None if said is None else kind.theirs(said)
        raise LookupError(layer)

    return Kind(kind.what, kind.fits, kind.ours, theirs)


def head_size(spec: Any) -> int:
    """The width of a head, said or not."""
    heads = find(spec, f"{DEPTH}[0].sublayers[0].heads")
    return find(spec, f"{DEPTH}[0].sublayers[0].head_dim") or spec.dim // heads


def are_all(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list of what passes the test, and not empty."""
    return lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(map(test, value))


WHOLES = Kind("a list of whole numbers", are_all(WHOLE.fits), tuple, list)
BUCKETS = Kind(
    "a whole number, or a list of some",
    lambda value: WHOLE.fits(value) or WHOLES.fits(value),
    lambda value: tuple(value) if isinstance(value, (list, tuple)) else value,
    lambda value: list(value) if isinstance(value, tuple) else value,
)
LAYERS = Kind(
    f"a list of {LOCAL!r} and {HASHING!r}",
    are_all(lambda value: value in (LOCAL, HASHING)),
    tuple,
    lambda blocks: [layer_of(block) for block in blocks],
)
IS_AXIAL = Kind(FLAG.what, FLAG.fits, theirs=lambda position: isinstance(position, Axial))
HEAD_SIZE = Kind(WHOLE.what, WHOLE.fits, theirs=head_size)

KEYS = (
    Key("vocab_size", "vocab", WHOLE, 320),
    Key("hidden_size", "dim", WHOLE, 256),
    Key("attn_layers", DEPTH, LAYERS, (LOCAL, HASHING) * 3),
    Key("num_attention_heads", f"{DEPTH}[0].sublayers[0].heads", WHOLE, 12),
    Key("attention_head_size", "", HEAD_SIZE, 64),
    Key("feed_forward_size", f"{DEPTH}[0].sublayers[1].hidden", WHOLE, 512),
    Key("hidden_act", f"{DEPTH}[0].sublayers[1].activation", ACTIVATION, "relu"),
    Key("hidden_dropout_prob", "embedding.dropout", NUMBER, 0.05),
    Key("layer_norm_eps", "norm.eps", NUMBER, 1e-12),
    Key("axial_pos_embds", "embedding.position", IS_AXIAL, True),
    Key("axial_pos_shape", "embedding.position.shape", WHOLES, (64, 64)),
    Key("axial_pos_embds_dim", "embedding.position.dims", WHOLES, (64, 192)),
    Key("max_position_embeddings", "max_length", WHOLE, 4096),
    Key("lsh_attn_chunk_length", "", of_first(HASHING, "select.chunk", WHOLE), 64),
    Key("lsh_num_chunks_before", "", of_first(HASHING, "select.before", WHOLE), 1),
    Key("num_hashes", "", of_first(HASHING, "select.rounds", WHOLE), 1),
    Key("num_buckets", "", of_first(HASHING, "select.buckets", BUCKETS)),
    Key("lsh_attention_probs_dropout_prob", "", of_first(HASHING, "dropout", NUMBER), 0.0),
    Key("local_attn_chunk_length", "", of_first(LOCAL, "pattern.right.size", WHOLE), 64),
    Key("local_num_chunks_before", "", of_first(LOCAL, "pattern.right.before", WHOLE), 1),
    Key("local_attention_probs_dropout_prob", "", of_first(LOCAL, "dropout", NUMBER), 0.05),
    Key("initializer_range", None, NUMBER, 0.02),
)

RULES = (
    Fixed("is_decoder", True, "the local layers of an encoder wrap there from the last chunk to the first"),
    Fixed("tie_word_embeddings", False, "the head is twice as wide as a token vector"),
    Fixed("lsh_num_chunks_after", 0, "a decoder sees nothing of the chunks after its own"),
    Fixed("local_num_chunks_after", 0, "a decoder sees nothing of the chunks after its own"),
)

# The length of attn_layers again; how axial tables begin; how the head's product is cut; the seed of the rotations,
# which here are drawn from the seed of each call.
NOTES = words("num_hidden_layers axial_norm_std chunk_size_lm_head hash_seed")

BLOCK, LAYER = "stack.blocks.0.blocks.{n}", "reformer.encoder.layers.{n}"
THEIRS, OURS = f"{LAYER}.attention.self_attention", f"{BLOCK}.sublayers.0.projection"
PLACES = "reformer.embeddings.position_embeddings"


def weights(spec: Any) -> Table:
    """The table, for the number of axes of this spec."""
    axes = len(getattr(spec.embedding.position, "shape", ()))
    return Table(
        prefix="reformer.",
        rows=(
            Row("reformer.embeddings.word_embeddings.weight", "embedding.tokens.weight"),
            Row(f"{PLACES}.embedding.weight", "embedding.position.table.weight"),
            *(
                Row(f"{PLACES}.weights.{i}", f"embedding.position.tables.{i}.weight", Axis(i, axes))
                for i in range(axes)
            ),
            Row(f"{LAYER}.attention.layer_norm.*", f"{BLOCK}.residual.norms.0.*"),
            Row(f"{THEIRS}.query.weight", f"{OURS}.q_proj.weight"),
            Row(f"{THEIRS}.key.weight", f"{OURS}.k_proj.weight"),
            Row(f"{THEIRS}.query_key.weight", f"{OURS}.qk_proj.weight"),
            Row(f"{THEIRS}.value.weight", f"{OURS}.v_proj.weight"),
            Row(f"{LAYER}.attention.output.dense.weight", f"{OURS}.out_proj.weight"),
            Row(f"{LAYER}.feed_forward.layer_norm.*", f"{BLOCK}.residual.norms.1.*"),
            Row(f"{LAYER}.feed_forward.dense.dense.*", f"{BLOCK}.sublayers.1.up.*"),
            Row(f"{LAYER}.feed_forward.output.dense.*", f"{BLOCK}.sublayers.1.down.*"),
            Row("reformer.encoder.layer_norm.*", "norm.*"),
            Row("lm_head.decoder.weight", "head.proj.weight"),
            Row("lm_head.bias", "head.proj.bias"),
        ),
        ties=(Tie("lm_head.decoder.bias", "head.proj.bias"),),
        ignored=tuple(  # -1000, -100000, -10000 and -1000000000, which old files keep
            f"{THEIRS}.{name}_value_float{bits}" for name in ("self_mask", "mask") for bits in (16, 32)
        ),
    )


def build(said: Mapping[str, Any], parts: Parts) -> Decoder:
    """The spec of a Reformer."""
    dim, heads, chunk = said["hidden_size"], said["num_attention_heads"], said["lsh_attn_chunk_length"]
    size, dropout = said["attention_head_size"], said["hidden_dropout_prob"]
    wide = None if heads * size == dim else size
    hashing = LSH(
        chunk,
        said["num_hashes"],
        said["num_buckets"],
        said["lsh_num_chunks_before"],
        once=False,
        wrap=True,
        plain_below=chunk,
    )
    near = said["local_attn_chunk_length"], said["local_num_chunks_before"]
    kinds = {
        LOCAL: local_attention(heads, *near, head_dim=wide, dropout=said["local_attention_probs_dropout_prob"]),
        HASHING: lsh_attention(heads, hashing, head_dim=wide, dropout=said["lsh_attention_probs_dropout_prob"]),
    }
    norm = LayerNorm(said["layer_norm_eps"])
    feed_forward = MLP(said["feed_forward_size"], said["hidden_act"], dropout=dropout)
    blocks = tuple(Block((kinds[kind], feed_forward), PreNorm(norm, dropout)) for kind in said["attn_layers"])
    axial = Axial(said["axial_pos_shape"], said["axial_pos_embds_dim"])
    positions = axial if said["axial_pos_embds"] else Learned(said["max_position_embeddings"])
    head = Untied(bias=True) if HEAD in parts else None
    init, embedding = Normal(said["initializer_range"]), Embedding(positions, dropout=dropout)
    return Decoder("reformer", said["vocab_size"], dim, (Reversible(blocks),), embedding, norm, head, init)


REFORMER = Format(
    "reformer",
    Decoder,
    KEYS,
    build,
    weights,
    architectures=(("ReformerModelWithLMHead", frozenset({HEAD})), ("ReformerModel", NO_PARTS)),
    parts={HEAD: "lm_head."},
    parts_of=lambda spec: NO_PARTS if spec.head is None else frozenset({HEAD}),
    rules=RULES,
    notes=NOTES,
    unsaid={"is_decoder": True, "pad_token_id": 0},  # what fills up a sequence there needs an id, and is never met
    flatten=lambda config: {"is_decoder": False, **config},
)
