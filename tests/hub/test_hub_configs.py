"""What a config.json may not say: each is refused by name, all at once."""

from typing import Any

import pytest
from published import BERT_SHAPE, BLOOM_SHAPE, GPT2_SHAPE, LLAMA_SHAPE, MARIAN_SHAPE

from formers import CheckpointError, hub

PLAIN: dict[str, dict[str, Any]] = {
    "gpt2": GPT2_SHAPE,
    "bert": BERT_SHAPE,
    "roberta": BERT_SHAPE,
    "roformer": BERT_SHAPE,
    "longformer": {**BERT_SHAPE, "attention_window": [4, 6, 8]},
    "llama": LLAMA_SHAPE,
    "bloom": BLOOM_SHAPE,
    "marian": MARIAN_SHAPE,
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"activation_function": "quick_gelu"}, 'activation_function is "quick_gelu", and can only be one of gelu'),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is false, and can only be true: scores are divided"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is true"),
    ("gpt2", {"n_layer": "12"}, 'n_layer is "12", and can only be a whole number'),
    ("gpt2", {"n_layer": True}, "n_layer is true, and can only be a whole number"),
    ("gpt2", {"n_embd": 32, "hidden_size": 48}, "n_embd and hidden_size disagree: 32, 48"),
    ("gpt2", {"moe_experts": 4}, "moe_experts is unknown here; if it changes nothing in the model, remove it"),
    ("gpt2", {"quantization_config": {"bits": 4}}, 'quantization_config is {"bits": 4}'),
    ("gpt2", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map is .*code of its own, which is never loaded"),
    ("gpt2", {"pruned_heads": {"0": [1]}}, 'pruned_heads is {"0"'),
    ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "architectures names GPT2ForSequenceClassification"),
    ("bert", {"is_decoder": True}, "is_decoder is true"),
    ("bert", {"position_embedding_type": "relative_key"}, 'position_embedding_type is "relative_key"'),
    ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings is false, and can only be true"),
    ("bert", {"hidden_act": "mish"}, 'hidden_act is "mish"'),
    ("roformer", {"rotary_value": True}, "rotary_value is true"),
    ("roformer", {"embedding_size": 16}, "embedding_size is 16, and can only be 32, as hidden_size"),
    ("roformer", {"is_decoder": True}, "is_decoder is true"),
    ("roformer", {"tie_word_embeddings": False}, "tie_word_embeddings is false"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 'rope_type is "llama3"'),
    ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_type is "linear"'),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ("llama", {"rope_parameters": {"mystery": 0.5}}, "rope_parameters.mystery is unknown here"),
    ("llama", {"sliding_window": 4096}, "sliding_window is unknown here"),
    ("llama", {"hidden_act": "gelu_10"}, 'hidden_act is "gelu_10"'),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is true"),
    ("bloom", {"n_head": 6, "num_attention_heads": 4}, "n_head and num_attention_heads disagree"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings is false"),
    ("marian", {"decoder_vocab_size": 60}, "decoder_vocab_size is 60, and can only be 53, as vocab_size"),
    ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings is false"),
    ("marian", {"normalize_before": True}, "normalize_before is true"),
    ("marian", {"normalize_embedding": True}, "normalize_embedding is true"),
    ("marian", {"add_final_layer_norm": True}, "add_final_layer_norm is true"),
    ("marian", {"static_position_embeddings": False}, "static_position_embeddings is false"),
    ("marian", {"encoder_layerdrop": 0.1}, "encoder_layerdrop is 0.1"),
    ("marian", {"is_encoder_decoder": False}, "is_encoder_decoder is false"),
]


@pytest.mark.parametrize("family", PLAIN)
def test_the_plain_config_is_accepted(family: str) -> None:
    hub.spec_from_config({"model_type": family, **PLAIN[family]}).build()


@pytest.mark.parametrize(("family", "changes", "told"), REFUSED)
def test_refused(family: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json cannot be mapped: 1 problem\n  1. {told}"):
        hub.spec_from_config({"model_type": family, **PLAIN[family], **changes})


def test_all_at_once() -> None:
    wrong = {"model_type": "bert", "is_decoder": True, "hidden_act": "mish", "vocab_size": 3.5, "novelty": 1}
    with pytest.raises(CheckpointError) as caught:
        hub.spec_from_config(wrong)
    for name in ("4 problems", "is_decoder", "hidden_act", "vocab_size", "novelty"):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["t5", "GPT2", None, 7, ["gpt2"]])
def test_other_families(name: Any) -> None:
    with pytest.raises(CheckpointError, match=f"model_type .* those of {', '.join(hub.FORMATS)} can"):
        hub.spec_from_config({"model_type": name})


@pytest.mark.parametrize("family", PLAIN)
def test_there_and_back(family: str) -> None:
    spec = hub.spec_from_config({"model_type": family, **PLAIN[family]})
    config = hub.config_from_spec(spec)
    assert config["model_type"] == family
    assert hub.spec_from_config(config) == spec


@pytest.mark.parametrize("act", ["relu", "gelu_new", "gelu_pytorch_tanh", "gelu", "swish", "silu"])
def test_activations_keep_their_meaning(act: str) -> None:
    spec = hub.spec_from_config({"model_type": "gpt2", **GPT2_SHAPE, "activation_function": act})
    assert hub.spec_from_config(hub.config_from_spec(spec)) == spec


def test_published_configs_of_the_years() -> None:
    """Keys that stand in published files and shape nothing are no reason to refuse them."""
    opus = {
        "_num_labels": 3, "add_bias_logits": False, "add_final_layer_norm": False, "bad_words_ids": [[52]],
        "classif_dropout": 0.0, "decoder_vocab_size": 53, "max_length": 512, "normalize_before": False,
        "normalize_embedding": False, "num_beams": 6, "num_hidden_layers": 2, "static_position_embeddings": True,
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "gradient_checkpointing": False,
    }  # fmt: skip
    hub.spec_from_config({"model_type": "marian", **MARIAN_SHAPE, **opus})
    bloom = {
        "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "masked_softmax_fusion": True, "n_inner": None,
        "offset_alibi": 100, "pretraining_tp": 2, "seq_length": 4096, "skip_bias_add": True, "unk_token_id": 0,
        "skip_bias_add_qkv": False, "slow_but_exact": False, "n_embed": 36, "num_attention_heads": 6,
    }  # fmt: skip
    hub.spec_from_config({"model_type": "bloom", "vocab_size": 53, "n_layer": 3, **bloom})
    gpt2 = {"n_ctx": 24, "task_specific_params": {"text-generation": {"do_sample": True}}, "summary_type": "cls_index"}
    hub.spec_from_config({"model_type": "gpt2", **GPT2_SHAPE, **gpt2})
