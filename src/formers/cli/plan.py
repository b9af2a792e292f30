"""`formers plan`: what training or decoding would take, before it is paid for."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from formers.cli.model import chosen_model, declare_model
from formers.cli.parser import Parser
from formers.cli.terminal import Terminal
from formers.cli.training import HELP, changed
from formers.data.atomic import replacing
from formers.errors import ConfigError
from formers.plan.decoding import plan_decoding
from formers.plan.device import DEVICES, Device, bytes_of
from formers.plan.report import (
    bars,
    decoding_json,
    decoding_text,
    training_caption,
    training_json,
    training_table,
    verdict,
)
from formers.plan.setup import Setup
from formers.plan.training import plan_training, recomputing
from formers.spec import parse
from formers.train import TrainSpec

LENGTH, ROWS = 1024, 16
EXAMPLES = """\
  formers plan gpt2 --devices 8 --memory 80GB --batch 64 --length 1024
  formers plan llama dim=8192 depth=80 heads=64 kv_heads=8 hidden=28672 --devices 64 --device h100 --precision bf16
  formers plan switch experts=64 --devices 64 --memory 80GB --optimizer "Adafactor()"
  formers plan reformer --decode --length 65536 --device cpu --memory 16GB
"""


def declare(parser: Parser) -> None:
    """A model, the devices, and how it is trained or decoded."""
    declare_model(parser)
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="how many there are (%(default)s)")
    told = "what each is: its published peaks, which the options below replace (%(default)s)"
    parser.add_argument("--device", choices=DEVICES, default="h100", help=told)
    parser.add_argument("--memory", metavar="80GB", help="of each device")
    parser.add_argument("--speed", type=float, metavar="TFLOPS", help="products of matrices, at the peak")
    parser.add_argument("--utilisation", type=float, default=0.4, metavar="SHARE", help="of that peak (%(default)s)")
    parser.add_argument("--memory-bandwidth", type=float, metavar="GB/S", help="of a device's own memory")
    parser.add_argument("--bandwidth", type=float, metavar="GB/S", help="that a device sends to others")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="rows per update, of all devices; of --decode, streams each"
    )
    parser.add_argument("--length", type=int, metavar="N", help=f"tokens per row (the model's own, or {LENGTH})")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of products (%(default)s)")
    parser.add_argument("--optimizer", type=parse, metavar="OPTIMIZER", help=HELP["optimizer"])
    parser.add_argument("--accumulation", type=int, default=1, metavar="N", help=HELP["accumulation"])
    parser.add_argument("--loss-chunk", type=int, metavar="N", help=HELP["loss_chunk"])
    parser.add_argument("--decode", action="store_true", help="plan decoding, token by token, instead of training")
    told = "write the spec of what is recommended, for formers train: with recomputation, if that is part of it"
    parser.add_argument("--out", type=Path, metavar="FILE.json", help=told)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")


def run(options: argparse.Namespace) -> None:
    """Print the plan."""
    spec = chosen_model(options)
    setup = Setup(spec, options.devices, *_device(options), options.utilisation)
    length = options.length if options.length is not None else min(LENGTH, spec.max_length or LENGTH)
    if options.decode:
        _decode(options, setup, length)
    else:
        _train(options, setup, length)


def _train(options: argparse.Namespace, setup: Setup, length: int) -> None:
    batch = options.batch
    if batch is None:  # as many as there are devices at least, and equally many on each
        share = max(1, setup.devices) * max(1, options.accumulation)
        batch = -(-ROWS // share) * share
    given: dict[str, Any] = {"accumulation": options.accumulation, "loss_chunk": options.loss_chunk}
    given |= {"precision": options.precision} | ({} if options.optimizer is None else {"optimizer": options.optimizer})
    training = changed(TrainSpec(1, batch=batch, length=length), given)
    plan = plan_training(setup, training)
    if options.out is not None and plan.best is not None:
        chosen = recomputing(setup.spec) if plan.best.recomputed else setup.spec
        with replacing(options.out) as (stream,):
            stream.write(chosen.to_json().encode())
    if options.json:
        print(json.dumps(training_json(plan), indent=2))
        return
    terminal = Terminal()
    terminal.print(training_caption(plan), style="dim")
    terminal.print()
    terminal.print(training_table(plan))
    terminal.print()
    terminal.print(bars(plan), markup=False)
    terminal.print()
    terminal.print(verdict(plan, _words(options), options.out and str(options.out)), markup=False, soft_wrap=True)


def _decode(options: argparse.Namespace, setup: Setup, length: int) -> None:
    for name in ("optimizer", "loss_chunk", "out"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is of training; leave it out, or --decode")
    plan = plan_decoding(setup, 1 if options.batch is None else options.batch, length, options.precision)
    if options.json:
        print(json.dumps(decoding_json(plan), indent=2))
    else:
        Terminal().print(decoding_text(plan), markup=False)


def _device(options: argparse.Namespace) -> tuple[Device, int]:
    """What each device is, and how much memory it has."""
    device = DEVICES[options.device]
    if options.speed is not None:
        device = device._replace(speed=dict.fromkeys(device.speed, options.speed * 1e12))
    if options.memory_bandwidth is not None:
        device = device._replace(bandwidth=options.memory_bandwidth * 1e9)
    if options.bandwidth is not None:
        device = device._replace(link=options.bandwidth * 1e9)
    memory = device.memory if options.memory is None else bytes_of(options.memory)
    if memory is None:
        raise ConfigError(f"how much memory a {device.name} has is not known; give it, such as --memory 16GB")
    return device, memory


def _words(options: argparse.Namespace) -> str:
    """The words that named the model, as they were given."""
    preset = [] if options.preset is None else ["--preset", options.preset]
    changes = [word for assignment in options.assignments for word in ("--set", assignment)]
    return shlex.join([options.model, *options.arguments, *preset, *changes])
