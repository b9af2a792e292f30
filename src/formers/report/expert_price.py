"""The price of experts: all of the router, and of the rest what the experts of a token have."""

from typing import Any

import torch

from formers.attention import Attention
from formers.experts import Switch, SwitchAttention
from formers.experts.switch import SwitchLayer
from formers.model import parameter_count
from formers.report.price import Price, price_of
from formers.report.quantity import NUMBER
from formers.spec.core import Site


@price_of.register
def _switch(part: Switch, module: SwitchLayer, site: Site, length: int) -> Price:
    parameters, router = parameter_count(module), module.router.weight.numel()
    met = part.top_k * (parameters - router) // part.experts
    products = [weight.numel() // part.experts for weight in module.experts.parameters() if weight.dim() == 3]
    operations = 2 * router + 2 * part.top_k * sum(products)
    return Price(parameters, operations, operations, NUMBER * (router + met))


@price_of.register
def _attention(part: SwitchAttention, module: Any, site: Site, length: int) -> Price:
    """That of plain attention, with layers of experts in place of the matrices for queries, keys and values."""
    plain = Attention(part.heads, pattern=part.pattern, position=part.position)
    with torch.device("meta"):
        built: Any = plain.build(site)
    matrices = [price_of(part.switch, layer, site, length) for layer in (module.to_queries, module.to_keys)]
    replaced = parameter_count(built.projection.q_proj)
    products = 2 * built.projection.q_proj.weight.numel()
    one = Price(replaced, products, products, NUMBER * replaced)
    return price_of(plain, built, site, length) + matrices[0] + matrices[1] + one.times(-3)
