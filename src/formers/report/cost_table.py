"""Costs as a table, and what its columns mean."""

from rich.table import Table

from formers.report.cost import Cost
from formers.report.price import Price
from formers.report.quantity import of_bytes, of_operations


def cost_table(cost: Cost) -> Table:
    """A row for each part and one for the whole. What does not write token by token has no columns for decoding."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part")
    decoding = (f"token {cost.length:,}", "weights read", "state a token", f"state at {cost.length:,}")
    for heading in ("", "parameters", "share", "operations a token", *(decoding if cost.decodes else ())):
        table.add_column(heading, justify="right")
    whole = cost.total
    for name, number, price in cost.parts:
        table.add_row(name, f"x {number}" if number > 1 else "", *_cells(price, whole, cost.decodes))
    table.add_section()
    table.add_row("whole", "", *_cells(whole, whole, cost.decodes), style="bold")
    return table


def cost_caption(cost: Cost) -> str:
    """The columns of the table in words."""
    n = f"{cost.length:,}"
    lines = [f"operations: of matrix products, multiply and add as two; the mean of a pass over {n} tokens"]
    if cost.decodes:
        lines += [
            f"token {n}: the operations of that token alone, decoded with all before it in the state",
            "weights read, state: bytes in fp32, one sequence, that a decode step reads, and that decoding keeps",
        ]
    if cost.recomputed:
        again = of_operations(cost.recomputed)
        lines.append(f"training runs {again} of the operations a token once more, instead of keeping what they gave")
    if any(part.name.startswith("source ") for part in cost.parts):
        lines.append("whole: one token of the source and one of the target, the source as long as the target")
    return "\n".join(lines)


def _cells(price: Price, whole: Price, decodes: bool) -> list[str]:
    share = f"{price.parameters / whole.parameters:.1%}" if price.parameters else "-"
    cells = [f"{price.parameters:,}" if price.parameters else "-", share, of_operations(price.operations)]
    if decodes:
        cells += [of_operations(price.last), *map(of_bytes, (price.weights, price.token, price.state))]
    return cells
