"""Attention over sorted chunks: one executor for whatever is local in some order of the tokens."""
