"""The price of steps that become three tokens each, of which the last but one is read for an action."""

from typing import Any

from formers.control.decision.embedding import TOKENS, ActionHead, StepEmbedding
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _steps(part: StepEmbedding, module: Any, site: Site, length: int) -> Price:
    """Each token goes through the matrix, or reads the row, of its own kind, and reads the row of its step."""
    parameters, products = parameter_count(module), by_matrices(module) / TOKENS
    tables = [inner.weight for inner in (module.observations, module.actions, module.steps) if hasattr(inner, "weight")]
    read = parameters - sum(table.numel() for table in tables) + sum(table.shape[1] for table in tables)
    return Price(parameters, products, products, NUMBER * read)


@price_of.register
def _actions(part: ActionHead, module: Any, site: Site, length: int) -> Price:
    """One token of a step tells its action."""
    parameters, products = parameter_count(module), by_matrices(module) / TOKENS
    return Price(parameters, products, products, NUMBER * parameters)
