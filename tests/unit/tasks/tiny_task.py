"""Small models, a small text and a small dictionary."""

import itertools

import torch
from torch import nn

from formers import make

TEXT = "".join(f"{number} green bottles, and {number * number} more; " for number in range(80))
WORDS = {"red": "rot", "blue": "blau", "cat": "Katze", "big": "groß"}
PAIRS = [
    (" ".join(words), " ".join(WORDS[word] for word in words))
    for count in (2, 4, 5)
    for words in itertools.islice(itertools.product(WORDS, repeat=count), 0, None, 4 ** max(0, count - 4))
]
TINY = {"dim": 32, "depth": 2, "heads": 2, "hidden": 64, "dropout": 0.0}


def tiny(member: str, vocab: int, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    return make(member, vocab=vocab, **(TINY | changes)).build()
