"""Mixed training: tokens are sent to exits by chance. Elbayad et al. 2020, arXiv:1910.10073, section 2.2."""

from collections.abc import Callable

import torch
from torch import Tensor

from formers.call import Out, add_losses, add_records


def along_paths(
    count: int, depth: int, shape: tuple[int, int], chance: torch.Generator, run: Callable[[Tensor], Out]
) -> Out:
    """A pass for each of `count` draws of exits (B, T), from 1 to depth, any of them alike for each token.

    run: a pass, given the exits. The output and the state are those of the first one. Losses are means over the passes;
    in the records "leaves" are the exits of each, and "exits" what each put out (B, T, M), which for every token is the
    state at its exit, copied upward.
    """
    outs = [run(torch.randint(1, depth + 1, shape, generator=chance)) for _ in range(count)]
    losses = {name: total / count for name, total in add_losses(*(out.losses for out in outs)).items()}
    records = add_records(*(out.records for out in outs)) | {"exits": tuple(out.y for out in outs)}
    return outs[0]._replace(losses=losses, records=records)
