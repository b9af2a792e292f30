"""Text and tokens: tokenizers, sources, memory-mapped token files, and batches that depend on (seed, step) alone."""
