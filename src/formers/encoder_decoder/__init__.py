"""Two sides: an encoder, and a decoder that attends to its output or begins with it."""

from formers.encoder_decoder.two_sides import EncoderDecoder, EncoderDecoderLayer

__all__ = ["EncoderDecoder", "EncoderDecoderLayer"]
