"""One projection along the sequence for all layers of a model."""

from collections.abc import Iterator

from torch import nn

from formers.attention.low_rank.compress import LinearSlots
from formers.attention.low_rank.linformer import Linformer, LinformerLayer
from formers.block import StackLayer
from formers.call import Layer
from formers.spec.core import Site, parts_within


class Layerwise(Layer):
    """Blocks whose `Linformer` layers share one E: "layerwise sharing" of arXiv:2006.04768, section 4.

    blocks: in which every Linformer has the same length, slots and LinearSlots(share="keys_values").
    """

    blocks: tuple[Layer, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        found = [part for part in parts_within(self.blocks) if isinstance(part, Linformer)]
        if not found:
            mend = 'blocks=(Block((Linformer(8, compress=LinearSlots("keys_values")), MLP(256))),)'
            yield "no Linformer stands in these blocks, and nothing else shares a projection", mend
            return
        one = LinearSlots("keys_values")
        for part in found:
            if part.compress != one:
                yield (
                    f"a matrix for all layers is one for keys and values too, not {part.compress!r}",
                    f"compress={one!r}",
                )
                return
        shapes = list(dict.fromkeys((part.slots, part.length) for part in found))
        if len(shapes) > 1:
            told = " and ".join(f"{slots} slots of {length} positions" for slots, length in shapes)
            yield f"one matrix cannot be of {told}", f"slots={shapes[0][0]}, length={shapes[0][1]}"

    @property
    def max_length(self) -> int | None:
        return min((part.length for part in parts_within(self.blocks) if isinstance(part, Linformer)), default=None)

    def build(self, site: Site) -> nn.Module:
        return LayerwiseLayer(self, site)


class LayerwiseLayer(StackLayer):
    def __init__(self, spec: Layerwise, site: Site) -> None:
        super().__init__(spec.blocks, site)
        first, *rest = (module for module in self.modules() if isinstance(module, LinformerLayer))
        for layer in rest:
            layer.compressor = first.compressor
