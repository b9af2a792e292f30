"""Models that act: in environments, and from what others did there."""
