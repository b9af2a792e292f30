"""State that is carried through training: what one step leaves, the next one goes on from."""

from typing import Any

from formers.errors import ConfigError
from formers.model import on_meta
from formers.position.transformer_xl import TransformerXL
from formers.spec.core import Spec, fields_of, parts_within


def carries(spec: Spec) -> bool:
    """Whether a model is to be trained on streams, its state handed on from step to step: some part of it says so."""
    return any(part.carries for part in parts_within(spec))


def remembering(spec: Any, memory: int, clamp: int | None = None) -> Any:
    """The same model with a memory of so many tokens, as for evaluating with a longer one than in training.

    Every part with a method `remembering(memory)` is replaced by what that returns; parameters stay as they are. clamp: the
    furthest distance that Transformer-XL's positions tell from others, None: as it is.
    Raises ConfigError for a model whose parts have no memory of a length that can be chosen.
    """
    if memory < 1:
        raise ConfigError(f"a memory of {memory} tokens remembers nothing: give a length of 1 or more")
    parts = list(parts_within(spec))
    if not any(hasattr(part, "remembering") for part in parts):
        raise ConfigError(f"{spec.name} has no memory whose length could be changed: {_why_none(spec)}")
    if clamp is not None and not any(isinstance(part, TransformerXL) for part in parts):
        raise ConfigError(f"{spec.name} has no TransformerXL positions, whose distances could be clamped")

    def change(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(change, value))
        if not isinstance(value, Spec):
            return value
        if hasattr(value, "remembering"):
            return value.remembering(memory)
        if clamp is not None and isinstance(value, TransformerXL):
            return value.replace(clamp=clamp)
        new = {name: change(item) for name, item in fields_of(value)}
        return value.replace(**{name: item for name, item in new.items() if item is not getattr(value, name)})

    return change(spec)


def with_memory(model: Any, memory: int, clamp: int | None = None) -> Any:
    """A built model as `remembering` says, on the parameters of this one."""
    return rebuilt(model, remembering(model.spec, memory, clamp))


def rebuilt(model: Any, spec: Any) -> Any:
    """The model of another spec on the parameters of this one, which must be the same by name and shape."""
    other = on_meta(spec)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.train(model.training)


def _why_none(spec: Any) -> str:
    embedding = getattr(spec, "embedding", None)
    if embedding is not None and embedding.position is not None:
        return f"its positions are absolute ({embedding.position!r}), so no token can come after those that they count"
    if carries(spec):
        return "what it remembers belongs to how it was trained"
    return "its tokens see what its patterns show, and no stored segments"
