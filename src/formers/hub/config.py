"""config.json as a table: what each key is called in a spec, what it may say, and which keys say nothing."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from formers.head import Tied

STEP = re.compile(r"(\w+)|\[(\d+)\]")


def itself(value: Any) -> Any:
    """The value, unchanged."""
    return value


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Kind:
    """What a key may hold, in words and as a test, and how it is turned into a field of a spec and back."""

    what: str
    fits: Callable[[Any], bool]
    ours: Callable[[Any], Any] = itself
    theirs: Callable[[Any], Any] = itself


# What the activations are called there; the first name of each of ours is the one that is written.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_WRITTEN = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}

WHOLE = Kind("a whole number", lambda value: type(value) is int)
NUMBER = Kind("a number", lambda value: type(value) in (int, float))
FLAG = Kind("true or false", lambda value: type(value) is bool)
DEPTH = Kind("a whole number", lambda value: type(value) is int, theirs=len)
TIED = Kind("true or false", lambda value: type(value) is bool, theirs=lambda head: isinstance(head, Tied))
ACTIVATION = Kind(
    "one of " + ", ".join(_ACTIVATIONS),
    lambda value: isinstance(value, str) and value in _ACTIVATIONS,
    _ACTIVATIONS.__getitem__,
    _WRITTEN.__getitem__,
)


@dataclass(frozen=True)
class Key:
    """A key that shapes the model.

    path: where a spec says it, "": in several places, which the kind finds; None: nowhere, so it is read and never
    written. default: what a missing key means,
    None: nothing in particular. also: other names of the key.
    """

    name: str
    path: str | None
    kind: Kind
    default: Any = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fixed:
    """A key that may say one thing alone, because of `why`."""

    name: str
    value: Any
    why: str


@dataclass(frozen=True)
class Alike:
    """A key that may only say again what another says, because of `why`."""

    name: str
    other: str
    why: str


# Keys of every family that shape nothing: notes, token ids, what is kept in training, how text is generated.
NOTES = words(
    "_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures "
    "bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classif_dropout classifier_dropout "
    "cls_token_id decoder_start_token_id diversity_penalty do_sample dtype early_stopping "
    "encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task "
    "forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_factor "
    "keys_to_ignore_at_inference label2id language length_penalty mask_token_id max_length min_length model_type "
    "name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences "
    "output_attentions output_hidden_states output_past output_scores pad_token_id prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
    "task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype "
    "torchscript transformers_version typical_p unk_token_id use_bfloat16 use_cache"
)

# What no family here may say.
PLAIN = (
    Fixed("is_decoder", False, "an encoder that is used as a decoder has no place here"),
    Fixed("add_cross_attention", False, "this family has no cross-attention here"),
    Fixed("is_encoder_decoder", False, "this family has one side here"),
    Fixed("tie_encoder_decoder", False, "the layers of encoder and decoder are not shared here"),
    Fixed("cross_attention_hidden_size", None, "this family has no cross-attention here"),
    Fixed("pruned_heads", {}, "all blocks have all their heads here"),
    Fixed("quantization_config", None, "weights are numbers here, not codes: save the model dequantized"),
    Fixed("auto_map", None, "the model runs code of its own, which is never loaded"),
)


def read_values(config: Mapping[str, Any], keys: tuple[Key, ...], problems: list[str]) -> dict[str, Any]:
    """What a config.json says, by key, in our terms; what it says wrongly goes to `problems`."""
    values = {}
    for key in keys:
        said = {name: config[name] for name in (key.name, *key.also) if config.get(name) is not None}
        if len({repr(value) for value in said.values()}) > 1:
            problems.append(f"{' and '.join(said)} disagree: {', '.join(map(json.dumps, said.values()))}")
        value = next(iter(said.values()), key.default)
        if value is not None and not key.kind.fits(value):
            problems.append(f"{next(iter(said))} is {json.dumps(value)}, and can only be {key.kind.what}")
        else:
            values[key.name] = None if value is None else key.kind.ours(value)
    return values


def find_refused(
    config: Mapping[str, Any],
    values: Mapping[str, Any],
    rules: tuple[Fixed | Alike, ...],
    known: Collection[str],
) -> Iterator[str]:
    """What a config.json says that cannot be mapped. values: of its keys, as read. known: what shapes nothing else."""
    by_name = {rule.name: rule for rule in (*PLAIN, *rules)}  # a family's own rule takes the place of the plain one
    for rule in by_name.values():
        value = config.get(rule.name)
        only = rule.value if isinstance(rule, Fixed) else values.get(rule.other)
        if value is not None and value != only:
            like = f", as {rule.other}" if isinstance(rule, Alike) else ""
            yield f"{rule.name} is {json.dumps(value)}, and can only be {json.dumps(only)}{like}: {rule.why}"
    for name in config:
        if name not in by_name and name not in known and name not in NOTES:
            yield f"{name} is unknown here; if it changes nothing in the model, remove it from config.json"


def write_values(spec: Any, keys: tuple[Key, ...]) -> dict[str, Any]:
    """What a config.json would say of a spec, by key. What the spec lacks, or a key cannot hold, is left out."""
    written = {}
    for key in keys:
        if key.path is not None:
            try:
                ours = find(spec, key.path)
                theirs = None if ours is None else key.kind.theirs(ours)
            except LookupError:
                continue
            if theirs is None or key.kind.fits(theirs):
                written[key.name] = theirs
    return written


def find(spec: Any, path: str) -> Any:
    """The field of a spec at a path such as blocks[0].sublayers[1].hidden; at "" itself. Raises LookupError."""
    for name, index in STEP.findall(path):
        if name and not hasattr(spec, name):
            raise LookupError(path)
        spec = getattr(spec, name) if name else spec[int(index)]
    return spec
