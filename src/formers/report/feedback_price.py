"""The price of layers that attend to a feedback memory."""

from typing import Any

from formers.attention.layer import heads_inside
from formers.feedback import Feedback
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _feedback(part: Feedback, module: Any, site: Site, length: int) -> Price:
    """One key and one value a token, whatever the depth; a query meets each memory and the vector of its distance."""
    inner = heads_inside(site, part.heads, None, part.head_dim)
    width, reach = inner.heads * inner.head_dim, min(part.reach, length - 1)
    met = reach - reach * (reach + 1) / (2 * length)  # in the mean: the first tokens meet fewer
    memory = 6 * width * part.depth
    made = by_matrices(module)
    parameters, token = parameter_count(module), NUMBER * 2 * width
    return Price(
        parameters,
        made + memory * met,
        made + memory * reach,
        NUMBER * parameters,
        token,
        token * min(part.reach, length),
    )
