"""Attention by blocks: any pattern over places, as blocks of queries that visit the blocks of keys that they see."""
