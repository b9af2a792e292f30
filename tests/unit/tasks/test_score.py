import math

import numpy as np
import pytest
import torch

from formers.data.tokenizer import BPETokenizer, ByteTokenizer
from formers.tasks.score import byte_count, score, summed


def test_a_bit_per_byte_is_ln_2_nats():
    found = score(nats=8 * math.log(2), tokens=2, text_bytes=4)
    assert found == {
        "nats": pytest.approx(4 * math.log(2)),
        "perplexity": pytest.approx(16.0),
        "tokens": 2,
        "bits_per_byte": pytest.approx(2.0),
        "bytes": 4,
    }


def test_unknown_bytes_are_left_out_and_a_hopeless_model_is_no_error():
    assert set(score(nats=1e9, tokens=1)) == {"nats", "perplexity", "tokens"}


def test_many_small_terms_are_summed_exactly():
    assert summed([torch.tensor(0.1)] * 1000) == pytest.approx(1000 * float(torch.tensor(0.1)), rel=1e-12)


def test_bytes_are_counted_token_by_token():
    text = "Grüße, и привет 🙂! " * 3
    for tokenizer in (ByteTokenizer(), BPETokenizer.train([text], 300)):
        tokens = [*tokenizer.encode(text), tokenizer.end]
        assert byte_count(np.array(tokens), tokenizer) == len(text.encode())


def test_a_token_that_does_not_tell_its_bytes_makes_them_unknown():
    class Vague(ByteTokenizer):
        def token_bytes(self, token):
            return None if token == 2 else b"x"

    assert byte_count(np.array([1, 1]), Vague()) == 2
    assert byte_count(np.array([1, 2]), Vague()) is None
