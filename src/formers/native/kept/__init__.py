"""Memory of large tensors, kept for the next ones."""

from formers.native.kept.library import empty_like, new_empty, release, widened

__all__ = ["empty_like", "new_empty", "release", "widened"]
