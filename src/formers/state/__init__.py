"""What a model remembers between calls, as a value, and as a file."""

from formers.state.value import Log, detach, handed_on, select, tensors, tree_map

__all__ = ["Log", "detach", "handed_on", "select", "tensors", "tree_map"]
