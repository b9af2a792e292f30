"""The price of depths that are run again and again, or left early."""

from typing import Any

from formers.depth import SeparableConv, Universal
from formers.depth.universal import UniversalLayer
from formers.exits import Exits
from formers.exits.layer import ExitsLayer
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _separable(part: SeparableConv, module: Any, site: Site, length: int) -> Price:
    """It keeps the last inputs of its two convolutions."""
    parameters, products, (first, second) = parameter_count(module), by_matrices(module), part.lengths
    kept = (first - 1) * site.dim + (second - 1) * part.hidden
    return Price(parameters, products, products, NUMBER * parameters, 0, NUMBER * kept)


@price_of.register
def _universal(part: Universal, module: UniversalLayer, site: Site, length: int) -> Price:
    """What stands beside its block: the signals of position and step, and what decides to halt."""
    beside = [inner for inner in (module.position, module.time, module.halting) if inner is not None]
    parameters = sum(parameter_count(inner) for inner in beside)
    tables = [] if module.position is None else module.position.read_by_row()
    read = parameters - sum(table.numel() for table in tables) + sum(table.shape[1] for table in tables)
    return Price(parameters, 0, 0, NUMBER * read)


@price_of.register
def _exits(part: Exits, module: ExitsLayer, site: Site, length: int) -> Price:
    """What stands beside its blocks, for a token that leaves nowhere: who may leave, and classifiers of exits of their own."""
    parameters = parameter_count(module.rule) + parameter_count(module.heads)
    products = by_matrices(module.rule) + (by_matrices(module.heads) if part.rule.reads else 0)
    return Price(parameters, products, products, NUMBER * parameters)
