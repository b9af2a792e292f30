"""The rules of lowering, by the very type of a part: one that inherits from another may mean something else."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import nn

from formers.errors import NoRuleError
from formers.native.engine.build import Builder

Rule = TypeVar("Rule", bound=Callable[..., Any])


class Slice(NamedTuple):
    """Heads side by side within a register: head h begins at `first` + h * head width."""

    register: int
    first: int = 0


class Heads(NamedTuple):
    """Where a projection has left the queries of all query heads, and the keys and values of all key heads."""

    q: Slice
    k: Slice
    v: Slice


class Rules:
    """The rules for one kind of part, such as sublayers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._rules: dict[type[nn.Module], Callable[..., Any]] = {}

    def __call__(self, *parts: type[nn.Module]) -> Callable[[Rule], Rule]:
        """Decorates the rule for these types."""

        def register(rule: Rule) -> Rule:
            for part in parts:
                self._rules[part] = rule
            return rule

        return register

    def apply(self, part: nn.Module, build: Builder, *given: Any) -> Any:
        """What the rule for this part says. Raises NoRuleError, which names the part, where there is none."""
        rule = self._rules.get(type(part))
        if rule is None:
            raise NoRuleError(
                f"the native engine has no rule for {type(part).__name__}, {self.kind}: decode with PyTorch"
            )
        with build.within(type(part).__name__):
            return rule(part, build, *given)


# (block, build, stream register) -> the stream register behind it
block_rule = Rules("a part of the depth")
# (layer, build, x, into, add) -> None. Reads register x and leaves it as it was; adds to or writes the register `into`.
sublayer_rule = Rules("a sublayer")
# (projection, build, x) -> Heads
projection_rule = Rules("a projection")
# (projection, build, x) -> Slice: queries alone, for attention to an encoder
query_rule = Rules("a projection of queries")
# (position, build, [(Slice, heads)] of queries and keys, or of keys alone) -> Order; turns them where they stand
order_rule = Rules("a position in attention")
# (projection, build, x) -> two Slices, keys and values alone, for tokens that pass attention by
keys_rule = Rules("a projection of keys and values")
# (features, build) -> Made; see lower_kernel.py
feature_rule = Rules("features of queries and keys")
# (layer, build, x) -> None: what it remembers of tokens that are carried past it. Leaves register x as it was.
skip_rule = Rules("a sublayer that is passed by")
# (projection, build, heads, into, add) -> None. The register `heads` holds the outputs of all query heads.
output_rule = Rules("a projection of heads")
# (norm, build, x, into) -> None; x and into may be the same
norm_rule = Rules("a norm")
# (position, build, x) -> None: adds to the embedding
place_rule = Rules("a position")
# (head, build, x, table) -> the register of the logits; table: the embedding's weight
head_rule = Rules("a head")
# (rule, build, exit) -> Sure | None; see lower_exits.py. None: nobody leaves there.
exit_rule = Rules("a rule of who leaves")
