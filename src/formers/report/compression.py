"""What a general compressor needs for a text: the yardstick beside which a model's bits per byte stand."""

import lzma
from concurrent.futures import ThreadPoolExecutor

HARDEST = 9 | lzma.PRESET_EXTREME


def xz_bits(text: bytes) -> float:
    """Bits per byte of `xz -9e` for a text alone, the container's some 60 bytes counted in."""
    return 8 * len(lzma.compress(text, preset=HARDEST)) / len(text)


def xz_bits_after(before: bytes, text: bytes) -> float:
    """Bits per byte that a text adds when `xz -9e` has seen another one before it."""
    with ThreadPoolExecutor(2) as both:  # lzma lets go of the interpreter's lock while it works
        alone, together = both.map(lambda content: len(lzma.compress(content, preset=HARDEST)), (before, before + text))
    return 8 * (together - alone) / len(text)
