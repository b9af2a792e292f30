"""The price of what takes in retrieved tokens."""

from typing import Any

from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.quantity import NUMBER
from formers.retrieval import RetrievalGate
from formers.spec.core import Site


@price_of.register
def _gate(part: RetrievalGate, module: Any, site: Site, length: int) -> Price:
    """Of a call for which nothing was retrieved: how much there is for a token, only its datastore knows."""
    parameters = parameter_count(module)
    return Price(parameters, weights=NUMBER * parameters)
