"""A LLaMA of random weights in llama.cpp: the rival of dense decoding on a CPU."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from formers.bench.memory import in_fresh_process
from formers.bench.registry import Rival
from formers.errors import FormersError

LLAMA_CPP = Rival(
    "llama.cpp (llama-cpp-python), a model of the same shape and type", "llama_cpp_python", extra="rivals-decode"
)
T = TypeVar("T")
TYPES = {"bf16": "BF16", "int8": "Q8_0"}
STD = 0.02


@dataclass(frozen=True)
class LlamaShape:
    """A LLaMA without grouped heads."""

    vocab: int = 32_000
    dim: int = 2048
    depth: int = 12
    heads: int = 16
    hidden: int = 5632


TINY = LlamaShape(vocab=64, dim=64, depth=1, heads=2, hidden=128)


def write_gguf(path: Path, shape: LlamaShape, dtype: str) -> None:
    """Write a model of that shape, of weights of that type, without a vocabulary of words."""
    import gguf

    kind = gguf.GGMLQuantizationType[TYPES[dtype]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.depth)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.dim)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")
    known: dict[tuple[int, int], np.ndarray] = {}
    for name, rows, columns in _matrices(shape):
        if (rows, columns) not in known:  # the time of a token does not depend on the weights
            weights = np.random.default_rng(0).standard_normal((rows, columns), np.float32) * STD
            known[rows, columns] = gguf.quants.quantize(weights, kind)
        writer.add_tensor(name, known[rows, columns], raw_dtype=kind)
    norms = [f"blk.{i}.{part}_norm.weight" for i in range(shape.depth) for part in ("attn", "ffn")]
    for name in ("output_norm.weight", *norms):
        writer.add_tensor(name, np.ones(shape.dim, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices(shape: LlamaShape) -> Iterator[tuple[str, int, int]]:
    yield "token_embd.weight", shape.vocab, shape.dim
    yield "output.weight", shape.vocab, shape.dim
    for i in range(shape.depth):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{i}.{part}.weight", shape.dim, shape.dim
        for part in ("ffn_gate", "ffn_up"):
            yield f"blk.{i}.{part}.weight", shape.hidden, shape.dim
        yield f"blk.{i}.ffn_down.weight", shape.dim, shape.hidden


def greedy(path: Path, prompt: list[int], count: int) -> Callable[[], None]:
    """What writes `count` tokens more with llama.cpp, each time that it is called."""
    model = opened(path, 2048)
    read(model, prompt)
    return writer(model, count)


def beside_llama_cpp(
    shape: LlamaShape, dtype: str, measure: Callable[..., T], *given: Any
) -> tuple[T | None, str | None]:
    """measure(file, *given) of a model in a process of its own, which llama.cpp may crash; or why it was not measured."""
    if not LLAMA_CPP.installed:
        return None, None
    with TemporaryDirectory() as folder:
        try:
            file = Path(folder) / "llama.gguf"
            return in_fresh_process(_written, file, shape, dtype, measure, given, give_back=False), None
        except FormersError as error:
            return None, f"llama.cpp was not measured: {error}"


def _written(file: Path, shape: LlamaShape, dtype: str, measure: Callable[..., T], given: tuple[Any, ...]) -> T:
    """Write the model, and measure it: both need what may be missing here."""
    write_gguf(file, shape, dtype)
    return measure(file, *given)


def opened(path: Path, length: int) -> Any:
    """A model in llama.cpp, with room for so many tokens."""
    import llama_cpp

    threads = torch.get_num_threads()
    with _silent():
        return llama_cpp.Llama(str(path), n_ctx=length, n_threads=threads, n_threads_batch=threads, verbose=False)


def read(model: Any, prompt: list[int]) -> None:
    """Forget all, and read a prompt."""
    with _silent():
        model.reset()
        model.eval(prompt)


def writer(model: Any, count: int) -> Callable[[], None]:
    """What writes `count` tokens more."""
    last = 0

    def run() -> None:
        nonlocal last
        for _ in range(count):
            model.eval([last])
            logits = np.ctypeslib.as_array(model._ctx.get_logits(), shape=(model.n_vocab(),))
            last = int(logits.argmax())

    return run


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the C library writes to standard error on its own."""
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
