"""Which engine writes: the native one or PyTorch, and why."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from formers.decode.modules import Modules
from formers.decode.native import Native
from formers.decode.prompt import Prompts
from formers.decode.sampling import Sampling
from formers.errors import FormersError, NoRuleError
from formers.native.engine.library import missing
from formers.native.engine.lower import outline
from formers.native.engine.program import Program
from formers.native.engine.weights import TYPES

EngineName = Literal["auto", "native", "torch"]
ENGINES: tuple[EngineName, ...] = ("auto", "native", "torch")
OWN = {torch.float32: "fp32", torch.float16: "fp32", torch.bfloat16: "bf16"}  # the type that loses nothing of a model's


class Writer(Protocol):
    """Rows that are written on, one token of each at a time."""

    def write(self) -> list[int]: ...

    def keep(self, places: list[int]) -> None: ...


class Choice(NamedTuple):
    """program: what the native engine is to run; None: PyTorch decodes, and `why` says why."""

    program: Program | None
    why: str | None = None

    def packed(self) -> "Choice":
        """The same, its weights packed now, and not anew by every writer."""
        return self if self.program is None else self._replace(program=self.program.packed())

    def writer(self, model: nn.Module, prompts: Prompts, sampling: Sampling, seeds: Sequence[int]) -> Writer:
        """Ready to write behind the prompts; seeds: one for each row."""
        if self.program is None:
            return Modules(model, prompts, sampling, seeds)
        return Native(model, prompts, self.program.packed(), sampling, seeds)


def choose_engine(model: nn.Module, engine: str = "auto", dtype: str | None = None) -> Choice:
    """Whether the native engine can decode with a model.

    The weights of what it gives are not packed yet. engine: 'auto' takes the native one where it is built, the model is
    on the CPU in 32 bits or fewer, and the engine knows all of its parts; 'native' raises FormersError, saying what is
    missing, where it cannot; 'torch' never takes it.
    dtype: of the native engine's weights, 'fp32', 'bf16', 'int8' or 'int4'; None: the model's own.
    """
    if engine not in ENGINES:
        raise FormersError(f"there is no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if dtype is not None and dtype not in TYPES:
        raise FormersError(f"weights can be {', '.join(TYPES)}, not {dtype!r}")
    if engine == "torch":
        if dtype is not None:
            raise FormersError(f"weights in {dtype} are the native engine's; leave out the engine 'torch', or the type")
        return Choice(None, "it was asked for")
    weight = _weight(model)
    why = missing() or (_refuses(weight) if engine == "auto" else None)
    if why is None:
        try:
            return Choice(outline(model, dtype or OWN.get(weight.dtype, "fp32")))
        except NoRuleError as error:
            why = str(error)
    if engine == "native" or dtype is not None:
        wanted = "the engine 'native'" if engine == "native" else f"weights in {dtype}"
        raise FormersError(f"{why}; {wanted} cannot be had for this model: leave that out to decode with PyTorch")
    return Choice(None, why)


def chosen(model: nn.Module, engine: str | Choice, dtype: str | None) -> Choice:
    """What was chosen before, or a choice made now. Raises FormersError as `choose_engine`, and for a type beside a Choice."""
    if not isinstance(engine, Choice):
        return choose_engine(model, engine, dtype)
    if dtype is not None:
        raise FormersError(
            f"the engine was chosen already, with the type of its weights: give {dtype!r} to choose_engine"
        )
    return engine


def _weight(model: Any) -> Tensor:
    weight: Tensor = next(model.parameters())
    return weight


def _refuses(weight: Tensor) -> str | None:
    """Why the native engine is not taken without being asked for."""
    if weight.device.type != "cpu":
        return f"the model is on {weight.device.type}, and the native engine runs on the CPU"
    if weight.dtype not in OWN:
        return f"the model computes in {str(weight.dtype).removeprefix('torch.')}, and the native engine in float32"
    return None
