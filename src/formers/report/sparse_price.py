"""The prices of sparse layers and of the recurrence beside them."""

from typing import Any

from torch import nn

from formers.model import parameter_count
from formers.recurrence import SRUBranch
from formers.report.price import Price, price_of
from formers.report.products import by_matrices
from formers.report.quantity import NUMBER
from formers.sparse import BlockFF, Mixed, SparseFF, SwitchFF
from formers.spec.core import Site


@price_of.register
def _sparse_feed_forward(part: SparseFF, module: Any, site: Site, length: int) -> Price:
    """All of the controller, and of each block one row of either matrix."""
    controller = nn.ModuleList([module.controller_in, module.controller_out])
    return _chosen(module, controller, part.hidden // part.block, site)


@price_of.register(BlockFF)
@price_of.register(SwitchFF)
def _experts(part: BlockFF | SwitchFF, module: Any, site: Site, length: int) -> Price:
    return _chosen(module, module.controller, part.hidden // part.experts, site)


def _chosen(module: Any, controller: nn.Module, units: int, site: Site) -> Price:
    operations = by_matrices(controller) + 2 * 2 * units * site.dim
    read = parameter_count(controller) + 2 * units * site.dim + module.down.bias.numel()
    return Price(parameter_count(module), operations, operations, NUMBER * read)


@price_of.register
def _recurrence(part: SRUBranch, module: nn.Module, site: Site, length: int) -> Price:
    parameters, operations = parameter_count(module), by_matrices(module)
    state = NUMBER * part.depth * part.width
    return Price(parameters, operations, operations, NUMBER * parameters, 0, state)


@price_of.register
def _mixed(part: Mixed, module: Any, site: Site, length: int) -> Price:
    """Outside training it is the sparse head alone."""
    sparse = price_of(part.head, module.sparse, site, length)
    return sparse + Price(parameters=parameter_count(module.dense))
