"""Tensors by a table: out of a checkpoint into a model, and out of a model as a checkpoint's."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from formers.errors import CheckpointError
from formers.hub.format import numbered
from formers.hub.source import FLOATS, Tensors
from formers.hub.table import Constant, Row, Table, Tie
from formers.train.weights import unique_tensors

# Sines of angles that were rounded to float32 are this far off at the far end of a table.
SINE_ERROR = 1e-4


@dataclass(frozen=True)
class Account:
    """What became of a checkpoint's tensors.

    read: how many were read; types: the types that they were saved in; left_out: buffers that say nothing.
    """

    read: int
    types: tuple[str, ...]
    left_out: tuple[str, ...]


def fill(model: nn.Module, table: Table, tensors: Tensors, where: str) -> Account:
    """Give a model that was built on the meta device its memory, and every parameter from a checkpoint.

    Raises CheckpointError, before there is memory, with all that is missing, unknown, of another shape or not a float;
    and, after that, with all second copies that differ from the first.
    """
    ours = unique_tensors(model)
    rows = table.rows_for(ours.keys())
    claimed = {row.theirs for row in rows}
    ties = [tie for tie in table.ties if tie.theirs not in claimed and tie.ours in ours]
    known = claimed | {tie.theirs for tie in ties} | {constant.theirs for constant in table.constants}
    found, problems = _found(table, tensors, known)
    problems += _misfits(rows, ours, tensors, found)
    _refuse(problems, where)
    problems += _false_copies(table.constants, ties, rows, tensors, found)
    _refuse(problems, where)
    model.to_empty(device="cpu")
    ours = unique_tensors(model)
    with torch.no_grad():
        for row in rows:
            for name, part in zip(row.ours, row.by.ours(tensors.get(found[row.theirs])), strict=True):
                ours[name].copy_(part)
    kept = [name for name in tensors.shapes if name not in found.values()]
    types = sorted({FLOATS[tensors.types[found[row.theirs]]] for row in rows})
    return Account(len(rows), tuple(types), tuple(kept))


def publish(model: nn.Module, table: Table, positions: int) -> dict[str, Tensor]:
    """A model's tensors as the checkpoint family keeps them. positions: rows of the tables that a formula makes."""
    ours = unique_tensors(model)
    rows = table.rows_for(ours.keys())
    theirs = {row.theirs: row.by.theirs([ours[name].detach() for name in row.ours]).contiguous() for row in rows}
    for constant in table.constants:
        if constant.width is not None:
            theirs[constant.theirs] = constant.make(positions, constant.width)
    return theirs


def _found(table: Table, tensors: Tensors, known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The name in the file of each known tensor that is there, and what is there and has no place."""
    found: dict[str, str] = {}
    problems = []
    for name in tensors.shapes:
        today = table.canonical(name, known)
        if today is None:
            problems.append(f"{name} is there and has no place in the model")
        elif today in found:
            problems.append(f"{name} and {found[today]} are two names of one tensor")
        elif today in known:
            found[today] = name
    return found, problems


def _misfits(rows: list[Row], ours: Mapping[str, Tensor], tensors: Tensors, found: Mapping[str, str]) -> Iterator[str]:
    """What is missing, and what cannot be copied as it is. ours: without memory, for their shapes alone."""
    for row in rows:
        if row.theirs not in found:
            yield f"{row.theirs} is missing"
            continue
        name = found[row.theirs]
        shape = tuple(row.by.theirs([ours[part] for part in row.ours]).shape)
        if tensors.shapes[name] != shape:
            yield f"{name} has the shape {tensors.shapes[name]} and should have {shape}"
        if tensors.types[name] not in FLOATS:
            yield f"{name} is {tensors.types[name]}, and weights can only be {', '.join(FLOATS.values())}"


def _false_copies(
    constants: tuple[Constant, ...], ties: list[Tie], rows: list[Row], tensors: Tensors, found: Mapping[str, str]
) -> Iterator[str]:
    """What is told twice, by a second tensor or by a formula, and is not the same."""
    first = {row.ours[0]: found[row.theirs] for row in rows if len(row.ours) == 1}
    for tie in ties:
        if tie.theirs in found and not torch.equal(tensors.get(found[tie.theirs]), tensors.get(first[tie.ours])):
            yield f"{found[tie.theirs]} differs from {first[tie.ours]}, and the model has one tensor for both"
    for constant in constants:
        if constant.theirs in found and not _is_made(tensors.get(found[constant.theirs]), constant):
            yield f"{found[constant.theirs]} holds other positions than the sinusoids that the model computes"


def _is_made(table: Tensor, constant: Constant) -> bool:
    if table.dim() != 2 or not table.is_floating_point():
        return False
    error = (table.double() - constant.make(*table.shape).double()).abs()
    return bool((error <= max(SINE_ERROR, torch.finfo(table.dtype).eps)).all())


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        raise CheckpointError(f"{where} does not fit its config.json: {numbered(problems)}")
