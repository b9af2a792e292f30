"""The Compressive Transformer at the sizes of PG-19, and as its paper puts it together."""

from formers import CompressiveMemory, ConvCompression, TransformerXL, make
from formers.carried import carries
from formers.model import on_meta, parameter_count


def test_it_is_what_the_paper_trained_on_books() -> None:
    spec = make("compressive_transformer")
    attention = spec.blocks[0].sublayers[0]
    assert attention.memory == CompressiveMemory(512, 512, 512, ConvCompression(2), "attention")
    assert attention.position == TransformerXL() and len(spec.blocks) == 36
    assert carries(spec) and spec.max_length is None


def test_every_layer_has_a_compression_of_its_own() -> None:
    size = {"vocab": 11, "dim": 16, "depth": 3, "heads": 2, "hidden": 8, "segment": 4, "memory": 4, "compressed": 4}
    one_tap, two_taps = (
        parameter_count(on_meta(make("compressive_transformer", **size, compression=kind, loss=None)))
        for kind in (ConvCompression(1), ConvCompression(2))
    )
    assert two_taps - one_tap == 3 * 16 * 16
