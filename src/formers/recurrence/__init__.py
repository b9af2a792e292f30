"""Recurrences: layers that carry a state of fixed size from token to token."""

from formers.recurrence.scan import scan
from formers.recurrence.sru import SRUBranch

__all__ = ["SRUBranch", "scan"]
