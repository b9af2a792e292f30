"""Plans as tables, bars and JSON."""

import shlex
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from formers.plan.decoding import DecodingPlan
from formers.plan.setup import FILLED, Setup
from formers.plan.training import Candidate, TrainingPlan
from formers.report.quantity import of_operations

PARTS = ("weights", "gradients", "optimizer", "gathered", "carried", "copies", "activations")
SIGNS = {
    "weights": "w",
    "gradients": "g",
    "optimizer": "o",
    "gathered": "p",
    "carried": "c",
    "copies": "b",
    "activations": "a",
}
SIGNS |= {"state": "s", "working": "a"}
BAR, LONGEST = 48, 60  # signs of a bar that is as long as a device's memory, and of any


def of_decimal(count: float) -> str:
    """Bytes in the units that memory is sold in, such as 1.35 GB; a dash for none."""
    if count < 1:
        return "-"
    return f"{of_operations(count)}B" if count >= 999.5 else f"{count:.0f} B"


def of_seconds(seconds: float) -> str:
    """A time in seconds or milliseconds."""
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def training_table(plan: TrainingPlan) -> Table:
    """A row for each candidate: what a device holds by purpose, what it sends, and how long a step takes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = [part for part in PARTS if any(candidate.memory.get(part) for candidate in plan.candidates)]
    for heading in ("", *shown, "peak", "fits", "sent", "products", "memory", "step", "tokens/s"):
        table.add_column(heading, justify="left" if heading in ("", "fits") else "right", no_wrap=True)
    tokens = plan.training.batch * plan.training.length
    for candidate in plan.candidates:
        table.add_row(
            candidate.name,
            *(of_decimal(candidate.memory.get(part, 0)) for part in shown),
            of_decimal(candidate.total),
            "yes" if plan.fits(candidate) else "no",
            of_decimal(candidate.sent),
            of_seconds(candidate.compute),
            of_seconds(candidate.moving),
            of_seconds(candidate.seconds),
            f"{tokens / candidate.seconds:,.3g}",
            style="bold" if candidate is plan.best else "",
        )
    return table


def training_caption(plan: TrainingPlan) -> str:
    """What was asked, and what the columns mean."""
    training = plan.training
    active = f", of which a token meets {plan.active:,}" if plan.active < 0.99 * plan.parameters else ""
    return "\n".join(
        [
            f"{plan.setup.spec.name}: {plan.parameters:,} parameters{active}; "
            f"{of_operations(plan.operations)} operations a token and pass",
            f"{training.batch} rows of {training.length:,} tokens, {training.precision}, {training.optimizer!r}",
            _assumed(plan.setup, training.precision),
            "peak: bytes on each device when they are most; the parts are those of that moment. Parameters, gradients and",
            "optimiser state are fp32. sent: by each device in a step. step: the longest of products, memory and what is",
            "sent meanwhile, and what is waited for; a bound from below, since nothing overlaps entirely.",
        ]
    )


def _assumed(setup: Setup, precision: str) -> str:
    device, memory = setup.device, of_decimal(setup.memory)
    several = f"{setup.devices:,} devices" if setup.devices > 1 else "1 device"
    return (
        f"{several} ({device.name}) of {memory}, of which {FILLED:.0%} is planned; {setup.utilisation:.0%} of "
        f"{of_operations(device.speed[precision])} operations/s, {of_decimal(device.bandwidth)}/s of memory"
        + (f", {of_decimal(device.link)}/s sent" if setup.devices > 1 else "")
    )


def bars(plan: TrainingPlan) -> str:
    """Each candidate's memory as a bar of signs, with a mark where a device is as full as it may be."""
    candidates = plan.candidates
    named = [(candidate.name, candidate.memory) for candidate in candidates]
    return memory_bars(named, plan.setup)


def memory_bars(named: Sequence[tuple[str, dict[str, int]]], setup: Setup) -> str:
    """Parts of memory, one sign for each share of a device; what is longer than a device ends in an arrow."""
    width = max(len(name) for name, _ in named)
    used = {part for _, memory in named for part, size in memory.items() if size}
    lines = ["  ".join(f"{SIGNS[part]} {part}" for part in SIGNS if part in used) + "  | as full as planned"]
    full = round(BAR * FILLED)
    for name, memory in named:
        signs, end = "", 0.0
        for part, sign in SIGNS.items():
            end += memory.get(part, 0) * BAR / setup.memory
            signs += sign * (min(round(end), LONGEST) - len(signs))
        line = signs.ljust(full) if len(signs) <= full else signs
        told = line[:full] + "|" + line[full:] + (">" if end > LONGEST else "")
        lines.append(f"{name:<{width}}  {told.rstrip()}")
    return "\n".join(lines)


def verdict(plan: TrainingPlan, words: str, save: str | None) -> str:
    """The command that runs the best candidate, or what would make one fit. words: the model and options as given."""
    best = plan.best
    if best is None:
        return _too_small(plan)
    command = command_line(plan, best, save if best.recomputed and save else words)
    lines = [f"{best.name} is the fastest that fits:", f"  {command}"]
    if best.recomputed and not save:
        lines.insert(
            1, "  (give --out model.json here: it writes the model with its blocks in Recomputed; name it below)"
        )
    return "\n".join(lines)


def command_line(plan: TrainingPlan, best: Candidate, model: str) -> str:
    """`formers train` with what was planned, under torchrun where there are several devices."""
    training, distribution = plan.training, best.sharding.distribution
    several = plan.setup.devices
    nodes = (
        f"--nnodes {several // 8} --nproc-per-node 8"
        if several % 8 == 0 and several > 8
        else f"--nproc-per-node {several}"
    )
    start = "formers train" if several == 1 else f"torchrun {nodes} -m formers train"
    options = [f"--batch {training.batch}", f"--length {training.length}", f"--precision {training.precision}"]
    options += [f"--optimizer {shlex.quote(repr(training.optimizer))}"]
    options += [f"--loss-chunk {training.loss_chunk}"] if training.loss_chunk else []
    options += [f"--accumulation {best.pieces}"] if best.pieces > 1 else []
    options += [f"--shard {distribution.shard}"] if distribution.shard != "data" else []
    options += [f"--divide-experts {distribution.divide_experts}"] if distribution.divide_experts > 1 else []
    return f"{start} {model} {' '.join(options)} --steps STEPS --data PATH --out RUN"


def _too_small(plan: TrainingPlan) -> str:
    least = min(plan.candidates, key=lambda candidate: candidate.total)
    usable, kept = plan.setup.usable, least.total - sum(least.memory.get(part, 0) for part in ("activations", "copies"))
    told = f"nothing fits: {least.name} comes closest, with {of_decimal(least.total)} of {of_decimal(usable)} on each device"
    if not least.sharding.full and plan.setup.devices == 1 and kept > usable:
        return (
            f"{told}. Weights, gradients and optimiser state alone are too many: plan more --devices, which share them"
        )
    if least.memory.get("copies", 0) > usable / 2:
        return f"{told}. A pass keeps copies of all weights in {plan.training.precision}: plan --precision fp32"
    if kept > usable:
        return f"{told}. What is shared out is still too much: plan more --devices, or an optimizer that keeps less"
    mends = [
        "shorter rows (--length)",
        "--loss-chunk 1024" if plan.training.loss_chunk is None else "a smaller --loss-chunk",
    ]
    mends += ["" if least.recomputed else "a reversible or recomputed depth"]
    return f"{told}. Activations of one row are the most of it: plan {', or '.join(mend for mend in mends if mend)}"


def training_json(plan: TrainingPlan) -> dict[str, Any]:
    """All figures in plain JSON values: bytes, seconds, operations."""
    return {
        "model": plan.setup.spec.name,
        "parameters": plan.parameters,
        "active": plan.active,
        "operations": plan.operations,
        "devices": plan.setup.devices,
        "memory": plan.setup.memory,
        "usable": plan.setup.usable,
        "utilisation": plan.setup.utilisation,
        "best": plan.best.name if plan.best else None,
        "candidates": [_candidate_json(plan, candidate) for candidate in plan.candidates],
    }


def _candidate_json(plan: TrainingPlan, candidate: Candidate) -> dict[str, Any]:
    distribution = candidate.sharding.distribution
    return {
        "name": candidate.name,
        "shard": distribution.shard,
        "divide_experts": distribution.divide_experts,
        "recomputed": candidate.recomputed,
        "accumulation": candidate.pieces,
        "bytes": dict(candidate.memory),
        "peak": candidate.total,
        "fits": plan.fits(candidate),
        "sent": candidate.sent,
        "products_s": candidate.compute,
        "memory_s": candidate.moving,
        "sending_s": candidate.sending,
        "waiting_s": candidate.waiting,
        "step_s": candidate.seconds,
    }


def decoding_text(plan: DecodingPlan) -> str:
    """What a device holds and reads, and how many tokens that allows."""
    memory, streams = plan.memory, "1 stream" if plan.streams == 1 else f"{plan.streams} streams"
    fits = "which fits" if plan.fits else "which does not fit"
    lines = [
        f"{plan.setup.spec.name}: {plan.parameters:,} parameters, decoding in {plan.precision}, token {plan.length:,}",
        _assumed(plan.setup, plan.precision),
        f"state of a stream  {of_decimal(plan.state)}",
        f"on each device     {of_decimal(plan.total)} for {streams}, {fits}; room for {plan.most_streams:,}",
        f"a step reads       {of_decimal(plan.moved)}: {of_decimal(plan.read)} of weights a token at least, and the state",
        f"a step takes       {of_seconds(plan.seconds)} at least; {plan.rate:,.3g} tokens/s on all devices at most",
        "",
        memory_bars([(streams, memory)], plan.setup),
    ]
    if not plan.fits:
        lines += ["", _no_room(plan)]
    return "\n".join(lines)


def _no_room(plan: DecodingPlan) -> str:
    if plan.most_streams:
        return f"nothing fits: plan --batch {plan.most_streams}, or devices of {of_decimal(plan.total / FILLED)}"
    mend = "" if plan.precision == "bf16" else "--precision bf16, or "
    one = plan.weights + plan.state + max(plan.step, plan.prompt)
    return f"nothing fits: every device holds the whole model; plan {mend}devices of {of_decimal(one / FILLED)}"


def decoding_json(plan: DecodingPlan) -> dict[str, Any]:
    """All figures in plain JSON values."""
    return {
        "model": plan.setup.spec.name,
        "parameters": plan.parameters,
        "precision": plan.precision,
        "length": plan.length,
        "streams": plan.streams,
        "bytes": plan.memory,
        "state": plan.state,
        "weights_read": plan.read,
        "moved": plan.moved,
        "peak": plan.total,
        "usable": plan.setup.usable,
        "fits": plan.fits,
        "most_streams": plan.most_streams,
        "step_s": plan.seconds,
        "tokens_per_s": plan.rate,
    }
