"""Parts that mix tokens without pairs of queries and keys, and what to tell of them where others are drawn."""

from functools import singledispatch

from formers.attention import ConvolvedSlots, KernelAttention, Linformer, LinformerCross, PooledSlots
from formers.attention.low_rank.linformer import SlotAttention
from formers.attention.memorizing import MemorizingAttention
from formers.feedback import Feedback
from formers.fourier import Fourier
from formers.report.parts import walk
from formers.spec.core import Site, Spec


@singledispatch
def no_pairs(part: Spec) -> str | None:
    """A sentence, without its full stop, on a part that mixes tokens and has no pairs to draw; None: any other part."""
    return None


@no_pairs.register(Linformer)
@no_pairs.register(LinformerCross)
def _slots(part: SlotAttention) -> str:
    made = "sums of all tokens"
    if isinstance(part.compress, (PooledSlots, ConvolvedSlots)):
        made = f"each made of {part.length // part.slots} tokens side by side"
    of = "of the source, " if isinstance(part, LinformerCross) else ""
    return f"Every query meets {part.slots} slots, {of}{made}: there are no pairs of tokens to draw"


@no_pairs.register
def _fourier(part: Fourier) -> str:
    return "A Fourier transform brings every token to every other, by fixed weights: there are no pairs to draw"


@no_pairs.register
def _memorizing(part: MemorizingAttention) -> str:
    found = f"{part.top_k} keys of earlier segments, those of {part.memory:,} tokens that are nearest to it"
    return f"Every query of a head meets {found}: these pairs are not drawn"


@no_pairs.register
def _kernel(part: KernelAttention) -> str:
    return f"Every query meets sums over keys, of {part.features.count} features each: there are no pairs of tokens to draw"


@no_pairs.register
def _feedback(part: Feedback) -> str:
    met = f"one memory of each of the {part.reach} tokens before its own, made of what all layers made of it"
    return f"Every layer meets {met}: pairs of tokens would not show it"


def undrawn(model: Spec) -> dict[str, tuple[str, ...]]:
    """What there is to tell of such parts of a model, and the paths of those of which it is told."""
    found: dict[str, list[str]] = {}
    for path, part, _ in walk(model, Site(dim=0)):
        told = no_pairs(part)
        if told is not None:
            found.setdefault(told, []).append(path)
    return {told: tuple(paths) for told, paths in found.items()}
