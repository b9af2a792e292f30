"""Some images held out of training."""

import hashlib

import numpy as np

from formers.data.images.read import Images, Pixels
from formers.errors import DataError

SHARE = 0.05
# So many say how well a model does to a hundredth of a bit; an evaluation of thousands takes longer than much training.
MOST = 512


def hold_out(images: Images) -> tuple[Pixels, Pixels]:
    """Images to train on, and those held out: at most 512 of the test images, or where there are none, of one image in 20.

    The choice depends on what an image shows alone, so that copies of one are never on both sides. Raises DataError where
    there are fewer than two different ones.
    """
    if images.test is not None:
        keys = _keys(images.test)
        return images.train, images.test[np.sort(np.argsort(keys, kind="stable")[:MOST])]
    keys = _keys(images.train)
    different = np.unique(keys)
    if len(different) < 2:
        raise DataError(
            f"{len(keys)} image{'s' if len(keys) > 1 else ''} cannot be split into those to learn from and one to be "
            "held out; name at least two that differ"
        )
    limit = different[max(1, min(MOST, int(SHARE * len(different))))]
    return images.train[keys >= limit], images.train[keys < limit]


def _keys(pixels: Pixels) -> np.ndarray:
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels)
    return np.frombuffer(b"".join(digests), np.uint64)
