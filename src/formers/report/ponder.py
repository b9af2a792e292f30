"""How many steps each token of a text took, or how many blocks before it left: as characters, and as a picture like those of
the paper on the Universal Transformer, Dehghani et al. 2018, arXiv:1807.03819, figure 3."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.cells import cell_len
from rich.text import Text
from torch import Tensor

from formers.call import Encoded
from formers.data.atomic import replacing
from formers.depth import Universal
from formers.encoder_decoder import EncoderDecoder
from formers.exits import Exits
from formers.places import Places
from formers.report.parts import walk
from formers.spec.core import Site

COLUMNS = 96  # of a line of tokens in a terminal
BARS = 64  # tokens side by side in a picture
STYLES = ("dim", "green", "yellow", "red", "bold red")  # from the fewest steps that there could be to the most


class Ponder(NamedTuple):
    """The steps that each token of a text took in one depth. path: where it stands in the spec; most: steps it has;
    unit: what they are called."""

    path: str
    most: int
    steps: tuple[int, ...]
    unit: str = "steps"

    @property
    def told(self) -> str:
        """In words."""
        mean = sum(self.steps) / len(self.steps)
        few, many = min(self.steps), max(self.steps)
        fewer = 1 - mean / self.most
        return (
            f"{mean:.1f} {self.unit} to a token in the mean, from {few} to {many}, {fewer:.0%} fewer than {self.most}"
        )


def halting_depths(spec: Any) -> list[tuple[str, Universal | Exits]]:
    """The depths of a model that let tokens halt, or leave, with their paths, in the order in which they run."""
    found: list[tuple[str, Universal | Exits]] = []
    for place in walk(spec, Site(dim=0)):
        if isinstance(place.part, Exits) or (isinstance(place.part, Universal) and place.part.halting is not None):
            found.append((place.path, place.part))
    return found


@torch.no_grad()
def pondered(model: Any, tokens: Sequence[int]) -> list[Ponder]:
    """What each such depth did with a text. An encoder-decoder reads it on both sides."""
    inputs = torch.tensor([tokens])
    if isinstance(model.spec, EncoderDecoder):
        source = model.source(inputs, logits_at=None)
        encoded = Encoded(source.hidden, Places.run(0, inputs.shape[1]))
        target = model.target(inputs, logits_at=None, encoded=encoded)
        sides = [source.records, target.records]
    else:
        sides = [model(inputs, logits_at=None).records]
    taken = {name: iter([each for side in sides for each in side.get(name, ())]) for name in ("steps", "leaves")}
    return [_of_depth(path, depth, taken) for path, depth in halting_depths(model.spec)]


def _of_depth(path: str, depth: Universal | Exits, taken: Mapping[str, Iterator[Tensor]]) -> Ponder:
    """taken: what depths recorded, in the order in which they ran."""
    if isinstance(depth, Exits):
        return Ponder(path, len(depth.blocks), tuple(next(taken["leaves"])[0].tolist()), "blocks")
    return Ponder(path, depth.steps, tuple(next(taken["steps"])[0].tolist()))


def drawn(ponder: Ponder, names: Sequence[str]) -> Text:
    """The tokens in lines, the number of steps below each, the more the stronger."""
    text, width = Text(), 0
    above, below = Text(), Text()
    for name, steps in zip(names, ponder.steps, strict=True):
        cell = max(cell_len(name), len(str(steps)))
        if width and width + cell + 1 > COLUMNS:
            text.append_text(above).append("\n").append_text(below).append("\n\n")
            above, below, width = Text(), Text(), 0
        above.append(name + " " * (cell - cell_len(name) + 1))
        below.append(str(steps).ljust(cell + 1), style=_style(steps, ponder.most))
        width += cell + 1
    return text.append_text(above).append("\n").append_text(below)


def save_ponder(path: Path, title: str, found: Sequence[Ponder], names: Sequence[str]) -> None:
    """Write a PNG with a bar for each token. Raises DataError if it cannot be written."""
    from matplotlib.figure import Figure

    panels = [(ponder, start) for ponder in found for start in range(0, len(names), BARS)]
    figure = Figure(figsize=(0.16 * min(BARS, len(names)) + 2, 1.9 * len(panels) + 0.5), layout="constrained")
    figure.suptitle(title)
    for (ponder, start), axis in zip(panels, figure.subplots(len(panels), 1, squeeze=False)[:, 0], strict=True):
        steps, own = ponder.steps[start : start + BARS], names[start : start + BARS]
        axis.bar(range(len(steps)), steps, color="tab:blue")
        axis.set(ylim=(0, ponder.most), xlim=(-0.6, min(BARS, len(names)) - 0.4), ylabel=ponder.unit)
        axis.set_xticks(range(len(own)), own, fontsize=7, family="monospace", rotation=90, parse_math=False)
        if start == 0:
            axis.set_title(f"{ponder.path}: {ponder.told}", fontsize=8)
    with replacing(path) as (stream,):
        figure.savefig(stream, format="png", dpi=150)


def bare(names: Sequence[str]) -> Iterator[str]:
    """The names of tokens without their quotes; a space is an open box, so that it is seen."""
    for name in names:
        yield name[1:-1].replace(" ", "\N{OPEN BOX}") if name[:1] in "'\"" and name[:1] == name[-1:] else name


def _style(steps: int, most: int) -> str:
    return STYLES[min(len(STYLES) - 1, (steps - 1) * len(STYLES) // most)]
