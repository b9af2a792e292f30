"""What an encoder has read, handed to the streams of a decoder: PyTorch runs the encoder, once for each text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from formers.attention.cross import CrossAttentionLayer
from formers.attention.kernel.cross import KernelCrossAttentionLayer
from formers.call import Call, Encoded
from formers.encoder_decoder.after_encoder import AfterEncoderLayer
from formers.native.engine.build import Builder
from formers.native.engine.rules import feature_rule
from formers.native.engine.run import Session


def give_encoded(session: Session, model: Any, encoded: Encoded) -> None:
    """Hand an encoder's output to the session's streams, row i to stream i, without the padding: as keys and values, as
    sums over them, or as what streams begin with.

    model: the encoder-decoder whose target side the session runs. Its cross-attentions are met in the order of lowering.
    """
    parts = list(model.target.modules())
    if any(type(part) is AfterEncoderLayer for part in parts):
        for stream in range(session.streams):
            session.precede(stream, _real(encoded.hidden[stream], encoded, stream))
    given = [number for number, cache in enumerate(session.engine.program.caches) if cache.keep == "given"]
    made = [rows for part in parts for rows in _made(part, encoded, session.streams)]
    for cache, of_streams in zip(given, made, strict=True):
        for stream, of_stream in enumerate(of_streams):
            session.give(cache, stream, of_stream)


def _made(part: Any, encoded: Encoded, streams: int) -> Iterator[list[np.ndarray]]:
    """What each cache of a part is given for each stream, if it attends to an encoder."""
    if type(part) is CrossAttentionLayer:
        for of_all in part.projection.keys_values(encoded.hidden):
            yield [_real(of_all[stream], encoded, stream) for stream in range(streams)]
    if type(part) is KernelCrossAttentionLayer:
        sums = part.encoded(encoded, Call(encoded.places))
        laid_out = feature_rule.apply(part.features, Builder("fp32")).laid_out(sums)
        yield [_numbers(laid_out[stream]) for stream in range(streams)]


def _real(of_row: Tensor, encoded: Encoded, row: int) -> np.ndarray:
    """(..., S, width) of one row -> (..., its tokens, width)."""
    real = encoded.places.real
    return _numbers(of_row if real is None else of_row[..., real[row], :])


def _numbers(tensor: Tensor) -> np.ndarray:
    numbers: np.ndarray = tensor.detach().float().cpu().numpy()
    return numbers
