"""Numbers as people read them, and yardsticks."""

import lzma

import pytest

from formers import Attention, Decoder, make
from formers.attention import Selector
from formers.report.abilities import causal, streams_exactly
from formers.report.compression import xz_bits, xz_bits_after
from formers.report.quantity import of_bytes, of_operations
from formers.spec import assign


class Picky(Selector):
    """Chooses from the whole sequence."""


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "-"),
        (7, "7"),
        (999, "999"),
        (1000, "1.00 k"),
        (256_519_680, "257 M"),
        (25_165_824, "25.2 M"),
        (1e15, "1.00 P"),
    ],
)
def test_operations(count: float, told: str) -> None:
    assert of_operations(count) == told


@pytest.mark.parametrize(("count", "told"), [(0, "-"), (512, "512 B"), (73_728, "72.0 KiB"), (1_048_576, "1.00 MiB")])
def test_bytes(count: float, told: str) -> None:
    assert of_bytes(count) == told


@pytest.mark.parametrize(
    ("name", "told"), [("gpt2", ("yes", "yes")), ("bert", ("no", "no")), ("transformer", ("target", "target"))]
)
def test_abilities_of_members(name: str, told: tuple[str, str]) -> None:
    spec = make(name)
    assert (causal(spec), streams_exactly(spec)) == told


def test_a_choice_by_content_does_not_stream_exactly() -> None:
    spec = assign(make("gpt2", depth=2), "blocks[0].sublayers[0].select=Picky()")
    assert isinstance(spec, Decoder) and isinstance(spec.blocks[0].sublayers[0], Attention)  # type: ignore[attr-defined]
    assert (causal(spec), streams_exactly(spec)) == ("yes", "no")


def test_xz_is_what_the_tool_makes() -> None:
    text = b"how many bits, how many bytes; " * 50
    assert xz_bits(text) == 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def test_xz_needs_little_for_what_it_has_seen() -> None:
    text = bytes(range(256)) * 8
    assert xz_bits_after(text, text) < 0.1 * xz_bits(text)
