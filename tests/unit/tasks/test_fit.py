import pytest
from tiny_task import TINY

from formers import make
from formers.data.tokenizer import ByteTokenizer
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.model import Decoder, Encoder
from formers.tasks.fit import require_fit


def spec(member, **changes):
    return make(member, **(TINY | {"vocab": 257} | changes))


def test_a_model_that_fits_is_taken():
    require_fit(spec("gpt2", length=16), Decoder, ByteTokenizer(), 16)
    require_fit(spec("bert", vocab=300, length=16), Encoder, ByteTokenizer(), 8)
    require_fit(spec("transformer"), EncoderDecoder, ByteTokenizer())


def test_everything_that_does_not_fit_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        require_fit(spec("gpt2", vocab=256, length=16).replace(head=None), Decoder, ByteTokenizer(), 32)
    assert "it knows 256 ids and the tokenizer has 257; use vocab=257" in str(caught.value)
    assert "it has no head" in str(caught.value)
    assert "it has 16 positions and rows are 32 long; use length=16" in str(caught.value)


def test_both_sides_of_an_encoder_decoder_are_looked_at():
    with pytest.raises(ConfigError, match=r"source\.vocab=257; and .*target\.vocab=257"):
        require_fit(spec("transformer", vocab=100), EncoderDecoder, ByteTokenizer())


def test_a_model_that_sees_the_future_cannot_learn_to_predict_it():
    with pytest.raises(ConfigError, match="named Decoder, not Encoder"):
        require_fit(spec("bert"), Decoder, ByteTokenizer())
