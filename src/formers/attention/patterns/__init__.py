"""Patterns beside the plain ones of `attention.pattern`: one room for each kind of sparse attention."""
