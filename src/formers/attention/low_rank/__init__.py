"""Attention of low rank: all tokens are met as a fixed number of slots. Linformer, arXiv:2006.04768."""
