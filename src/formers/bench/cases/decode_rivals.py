"""Decoding speed of one stream against PyTorch's compiler and against CTranslate2: the same weights, greedy, prompt read too."""

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from formers.bench.ctranslate import CTRANSLATE2, convert, greedy
from formers.bench.gpt2 import SHAPES, TINY, Shape, twins
from formers.bench.native import require_length
from formers.bench.registry import BENCHES, Rival
from formers.bench.trial import Trial
from formers.decode import GREEDY, choose_engine, generate
from formers.errors import FormersError
from formers.report.rows import Row, ratio_at_least

PROMPT, NEW = 32, 128
ROUNDS = 5
COMPILED = Rival("PyTorch compiled: torch.compile of transformers' GPT-2, its cache of a fixed size", "transformers")
COMPILERS = ("c++", "g++", "clang++")  # that PyTorch's compiler for CPUs looks for


@BENCHES.case(
    "decode",
    "GPT-2 shape (dim 256, depth 6, 8 heads), greedy, one stream, against PyTorch compiled",
    unit="tokens/s",
    rival=COMPILED,
    goal=ratio_at_least(1.5),
)
def compiled(trial: Trial) -> Iterator[Row]:
    """Tokens per second, the prompt included; compiling is done before, and takes most of the time of this case."""
    shape, new = (TINY[0], 4) if trial.quick else (SHAPES[0], NEW)
    name, why = f"decoding, vocabulary {shape.vocab:,}, fp32", _no_compiler()
    ours, rival, prompt = _contestants(shape, new, "fp32")
    if why is not None:
        trial = replace(trial, case=replace(trial.case, rival=None))
    backend = "eager" if trial.quick else "inductor"  # which only traces, in a tenth of the time
    duel = trial.duel(ours, lambda: _compiled(rival, prompt, new, backend), rounds=ROUNDS)
    row = trial.row(name, *duel.rate(new))
    yield row if why is None else replace(row, rival=COMPILED.name, note=why)


def _no_compiler() -> str | None:
    """Why nothing can be compiled here; None: it can."""
    if any(map(shutil.which, COMPILERS)):
        return None
    return f"not measured: PyTorch compiles for CPUs with a C++ compiler, and there is none of {', '.join(COMPILERS)}"


def _compiled(rival: Any, prompt: list[int], new: int, backend: str) -> Callable[[], None]:
    """It is compiled when it is first called: for the prompt, and for single tokens."""
    rival.forward = torch.compile(rival.forward, backend=backend)
    tokens = torch.tensor([prompt])
    how: dict[str, Any] = {"do_sample": False, "use_cache": True, "pad_token_id": 0, "cache_implementation": "static"}

    def run() -> None:
        written = rival.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, **how)
        require_length(written.shape[1] - len(prompt), new)

    return run


@BENCHES.case(
    "decode",
    "GPT-2 shape (dim 256, depth 6, 8 heads), greedy, one stream, against CTranslate2",
    unit="tokens/s",
    rival=CTRANSLATE2,
    goal=ratio_at_least(1.0),
)
def ctranslate2(trial: Trial) -> Iterator[Row]:
    """Tokens per second by the type of the weights, the prompt included; the model is converted before."""
    for shape in TINY if trial.quick else SHAPES:
        new = 4 if trial.quick else NEW
        for dtype in ("fp32", "int8"):
            ours, rival, prompt = _contestants(shape, new, dtype)
            with TemporaryDirectory() as folder:
                model = Path(folder) / "model"

                def make() -> Callable[[], None]:
                    if rival is None:  # noqa: B023
                        raise FormersError(f"CTranslate2 converts a model of transformers; {CTRANSLATE2.remedy}")
                    convert(copy.deepcopy(rival), model, dtype)  # noqa: B023 - called before the loop goes on
                    return greedy(model, prompt, new, dtype)  # noqa: B023

                duel = trial.duel(ours, make, rounds=ROUNDS)
            yield trial.row(f"decoding, vocabulary {shape.vocab:,}, {dtype}", *duel.rate(new))


def _contestants(shape: Shape, new: int, dtype: str) -> tuple[Callable[[], None], Any, list[int]]:
    """What writes with ours, the twin of transformers, and the prompt."""
    if shape.length < PROMPT + new:
        raise FormersError(f"a model of {shape.length} positions cannot write {new} tokens behind {PROMPT}")
    model, rival = twins(shape)
    engine = choose_engine(model, dtype=dtype).packed()
    prompt = torch.randint(shape.vocab, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()

    def ours() -> None:
        (written,) = generate(model, [prompt], max_new=new, sampling=GREEDY, engine=engine)
        require_length(len(written.tokens), new)

    return ours, rival, prompt
