"""`formers convert --to memorizing`: the same weights, and a memory in some layers."""

import argparse
from collections.abc import Collection
from typing import Any

from formers.cli.convert_long import read_old
from formers.cli.model import require_buildable
from formers.cli.parser import Parser
from formers.cli.progress import waiting
from formers.convert.memorizing import memorizing
from formers.errors import ConfigError
from formers.hub import hold
from formers.hub.read import require_free
from formers.model import parameter_count
from formers.spec import assign
from formers.train.weights import copy_weights

OF_MEMORY = ("layer", "segment", "memory", "top_k", "gate")


def declare_memory(parser: Parser) -> None:
    """Which layers, and how much they remember. Options that were not given are not in the namespace."""
    group = parser.add_argument_group("for --to memorizing (arXiv:2203.08913)")
    unsaid: dict[str, Any] = {"default": argparse.SUPPRESS}
    told = "attention layers that get a memory, counted from 1"
    group.add_argument("--layer", type=int, nargs="+", metavar="N", help=told, **unsaid)
    group.add_argument("--segment", type=int, metavar="N", help="tokens that are remembered together (512)", **unsaid)
    group.add_argument("--memory", type=int, metavar="N", help="tokens of the memory (65536)", **unsaid)
    group.add_argument("--top-k", type=int, metavar="N", help="keys that a query retrieves (32)", **unsaid)
    told = "a head takes the share sigmoid(X) from its memory at first (-4: nearly as before; the paper's 0: half)"
    group.add_argument("--gate", type=float, metavar="X", help=told, **unsaid)


def make_memorizing(options: argparse.Namespace, given: Collection[str]) -> None:
    """Convert, and tell. given: options of training and of other kinds."""
    if odd := sorted(given):
        told = f"--{odd[0].replace('_', '-')} is not for --to memorizing, which trains nothing"
        raise ConfigError(
            f"{told}. Train what comes out of it: formers train --from {options.out} --data ... --steps ..."
        )
    chosen = {name: getattr(options, name) for name in OF_MEMORY if name in options}
    require_free(options.out)
    with waiting(f"reading {options.run}"):
        old = read_old(options.run)
        spec, weights = memorizing(old.model, chosen.pop("layer", ()), **chosen)
        for assignment in getattr(options, "assignments", ()):
            spec = assign(spec, assignment)
        require_buildable(spec)
        new = spec.build()
        copy_weights(new, weights, f"what {old.model.spec.name} becomes by --to memorizing")
        hold(options.out, new, old.tokenizer, {})
    more = parameter_count(new) - parameter_count(old.model)
    print(f"{options.out}: {spec.name}, {more:,} parameters more than {old.model.spec.name}")
    print(f"train it: formers train --from {options.out} --data ... --steps ... --out ...")
