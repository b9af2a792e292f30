"""Attention over sorted chunks: one executor for whatever is local in an order of the tokens that content gives."""
