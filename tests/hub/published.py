"""Tiny models of published families, made on the spot with every parameter awake, and what each must agree on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from formers import hub
from formers.train.run import load_model

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 0.0}
VOCAB, LENGTH, WIDTH = 53, 24, 32

BERT_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": LENGTH,
}
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "n_positions": LENGTH, "n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_inner": 40,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA_SHAPE = {**BERT_SHAPE, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
BLOOM_SHAPE: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 36, "n_layer": 3, "n_head": 6}
MARIAN_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 48, "max_position_embeddings": LENGTH,
    "pad_token_id": 52, "decoder_start_token_id": 52, "eos_token_id": 0, "forced_eos_token_id": 0,
    "scale_embedding": True, "activation_function": "swish",
}  # fmt: skip


def awake(model: Any, seed: int = 0) -> Any:
    """The model at rest, with noise on every parameter and buffer that it learns, so that no zero hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    learned += [buffer for name, buffer in model.named_buffers() if name == "final_logits_bias"]
    with torch.no_grad():
        for tensor in learned:
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def gpt2(folder: Path, **changes: Any) -> tuple[Any, Path]:
    model = awake(transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT2_SHAPE, **changes})))
    return model, saved(model, folder)


def llama(folder: Path, **changes: Any) -> tuple[Any, Path]:
    model = awake(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA_SHAPE, **changes})))
    return model, saved(model, folder)


def bloom(folder: Path, **changes: Any) -> tuple[Any, Path]:
    model = awake(transformers.BloomForCausalLM(transformers.BloomConfig(**{**BLOOM_SHAPE, **changes})))
    return model, saved(model, folder)


def bert(folder: Path, kind: str = "BertForPreTraining", **changes: Any) -> tuple[Any, Path]:
    model = awake(getattr(transformers, kind)(transformers.BertConfig(**{**BERT_SHAPE, **changes})))
    return model, saved(model, folder)


def roformer(folder: Path, kind: str = "RoFormerForMaskedLM", **changes: Any) -> tuple[Any, Path]:
    model = awake(getattr(transformers, kind)(transformers.RoFormerConfig(**{**BERT_SHAPE, **changes})))
    return model, saved(model, folder)


def marian(folder: Path, **changes: Any) -> tuple[Any, Path]:
    model = awake(transformers.MarianMTModel(transformers.MarianConfig(**{**MARIAN_SHAPE, **changes})))
    return model, saved(model, folder)


def some_tokens(batch: int = 3, length: int = 11, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB - 1, (batch, length), generator=torch.Generator().manual_seed(seed))


def padding(side: str, batch: int = 3, length: int = 11) -> Tensor:
    """A mask (B, T), True at real tokens: rows of length, length - 4, length - 8, ..., padded on one side."""
    real = torch.arange(length)[None] < torch.arange(length, 0, -4)[:batch, None]
    return real if side == "right" else real.flip(1)


def positions(mask: Tensor) -> Tensor:
    """Positions that do not count padding, as transformers' `generate` gives them."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def rewrite(folder: Path, change: Any) -> None:
    """Change the tensors of a saved model in place: `change` gets a dictionary of them."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def configure(folder: Path, **changes: Any) -> None:
    """Change keys of a saved model's config.json; ... removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def same_tensors(left: Path, right: Path) -> None:
    """Two saved models hold the same names, and the same bits under each."""
    with safe_open(left / "model.safetensors", "pt") as a, safe_open(right / "model.safetensors", "pt") as b:
        assert sorted(a.keys()) == sorted(b.keys())
        for name in a.keys():  # noqa: SIM118 - a safetensors file is no dictionary
            assert torch.equal(a.get_tensor(name), b.get_tensor(name)), name


def round_trip(folder: Path, work: Path) -> Any:
    """Import, export, and load with transformers: nothing is missing or left over, and every bit is the same."""
    imported = hub.import_folder(folder, work / "run")
    hub.export(work / "run", work / "out")
    same_tensors(folder, work / "out")
    config = json.loads((work / "out" / "config.json").read_text())
    ours = load_model(work / "run")
    assert hub.spec_from_config(config) == imported.spec == ours.spec
    model, told = getattr(transformers, config["architectures"][0]).from_pretrained(
        work / "out", output_loading_info=True
    )
    assert not any(told.values()), told
    return model.eval()


def decodes(model: nn.Module, tokens: Tensor) -> None:
    """Token by token, and prompt then token by token, give the logits of one pass."""
    whole = model(tokens).logits
    for first in (1, 5):
        out = model(tokens[:, :first])
        pieces = [out.logits]
        for t in range(first, tokens.shape[1]):
            out = model.step(tokens[:, t : t + 1], out.state)
            pieces.append(out.logits)
        torch.testing.assert_close(torch.cat(pieces, 1), whole, **CLOSE)
