"""The price of experts: all of the router, and of the rest what the experts of a token have."""

from formers.experts import Switch
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
