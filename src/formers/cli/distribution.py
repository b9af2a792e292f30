"""How training is spread over processes, out of options."""

import argparse

from formers.cli.parser import Parser
from formers.distributed import Distribution

USUAL = Distribution()


def declare_distribution(parser: Parser) -> None:
    """An option for each field."""
    group = parser.add_argument_group("beyond one process, under torchrun")
    told = "what each process holds: the whole model (data), or a share of it (full) (%(default)s)"
    group.add_argument("--shard", choices=("data", "full"), default=USUAL.shard, help=told)
    told = "processes that the experts of each mixture are divided over (%(default)s)"
    group.add_argument("--divide-experts", type=int, default=USUAL.divide_experts, metavar="N", help=told)
    told = "with --shard full, keep parameters and optimiser state in the CPU's memory, and not in the GPU's"
    group.add_argument("--offload", action="store_true", help=told)
    told = "let what the forward pass keeps wait in the CPU's memory, and not in the GPU's"
    group.add_argument("--swap", action="store_true", help=told)


def given_distribution(options: argparse.Namespace) -> Distribution:
    """What the options say. Raises ConfigError where they do not go together."""
    spec = Distribution(options.shard, options.divide_experts, options.offload, options.swap)
    spec.check()
    return spec
