"""The spans that a model has learned, head by head, and what they save."""

from typing import Any

from rich.table import Table

from formers.attention.span_attention import SpanAttentionLayer
from formers.report.selection import spec_path


def span_table(model: Any, length: int) -> Table | None:
    """A row for each layer with spans, at a length in tokens; None for a model that has none."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, SpanAttentionLayer)]
    if not layers:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("span of each head, in tokens", overflow="fold")
    for heading in ("longest", "mean", f"scores saved at {length:,}"):
        table.add_column(heading, justify="right")
    table.add_column("layer", style="cyan", overflow="fold")
    for name, layer in layers:
        table.add_row(*_cells(layer, length), spec_path(name))
    return table


def _cells(layer: SpanAttentionLayer, length: int) -> list[str]:
    longest, usage = f"{layer.spec.longest:,}", layer.usage(length)
    if usage is None:
        return ["told from each query; `formers eval` tells their mean", longest, "-", "-"]
    return [" ".join(f"{span:,.0f}" for span in usage.spans), longest, f"{usage.mean:,.1f}", f"{usage.saved:.0%}"]
