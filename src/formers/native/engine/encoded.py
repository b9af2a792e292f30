"""What an encoder has read, handed to the streams of a decoder: PyTorch runs the encoder, once for each text."""

from typing import Any

import numpy as np
from torch import Tensor

from formers.after_encoder import AfterEncoderLayer
from formers.attention.cross import CrossAttentionLayer
from formers.call import Encoded
from formers.native.engine.run import Session


def give_encoded(session: Session, model: Any, encoded: Encoded) -> None:
    """Hand an encoder's output to the session's streams, row i to stream i, without the padding: as keys and values, or
    as what streams begin with.

    model: the encoder-decoder whose target side the session runs. Its cross-attentions are met in the order of lowering.
    """
    parts = list(model.target.modules())
    if any(type(part) is AfterEncoderLayer for part in parts):
        for stream in range(session.streams):
            session.precede(stream, _real(encoded.hidden[stream], encoded, stream))
    given = [number for number, cache in enumerate(session.engine.program.caches) if cache.keep == "given"]
    layers = [part for part in parts if type(part) is CrossAttentionLayer]
    for layer, pair in zip(layers, zip(given[::2], given[1::2], strict=True), strict=True):
        made = layer.projection.keys_values(encoded.hidden)
        for cache, of_all in zip(pair, made, strict=True):
            for stream in range(session.streams):
                session.give(cache, stream, _real(of_all[stream], encoded, stream))


def _real(of_row: Tensor, encoded: Encoded, row: int) -> np.ndarray:
    """(..., S, width) of one row -> (..., its tokens, width)."""
    real = encoded.places.real
    kept = of_row if real is None else of_row[..., real[row], :]
    return kept.detach().float().cpu().numpy()
