"""Models of transformers in CTranslate2: a rival of decoding on a CPU that reads 8-bit weights too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from formers.bench.native import require_length
from formers.bench.registry import Rival

CTRANSLATE2 = Rival("CTranslate2, the same model in the same type", "ctranslate2", extra="rivals-decode")
TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def convert(model: Any, folder: Path, dtype: str) -> None:
    """Write a GPT-2 or a LLaMA of transformers as CTranslate2 reads it. The model is taken apart on the way."""
    from ctranslate2.converters.transformers import GPT2Loader, LlamaLoader

    loader = {"gpt2": GPT2Loader, "llama": LlamaLoader}[model.config.model_type]()
    spec = loader.get_model_spec(model)
    spec.register_vocabulary([_word(token) for token in range(model.config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = _word(0)
    spec.config.layer_norm_epsilon = getattr(model.config, "rms_norm_eps", None)
    spec.validate()
    spec.optimize(quantization=TYPES[dtype])
    folder.mkdir()
    spec.save(str(folder))


def greedy(folder: Path, prompt: list[int], new: int, dtype: str) -> Callable[[], None]:
    """What writes `new` tokens behind the prompt with CTranslate2, each time that it is called."""
    import ctranslate2

    threads = torch.get_num_threads()
    generator = ctranslate2.Generator(
        str(folder), device="cpu", compute_type=TYPES[dtype], inter_threads=1, intra_threads=threads
    )
    words = [_word(token) for token in prompt]
    how: dict[str, Any] = {"beam_size": 1, "sampling_topk": 1, "include_prompt_in_result": False}

    def run() -> None:
        (result,) = generator.generate_batch([words], max_length=new, min_length=new, **how)
        require_length(len(result.sequences_ids[0]), new)

    return run


def _word(token: int) -> str:
    return f"<{token}>"
