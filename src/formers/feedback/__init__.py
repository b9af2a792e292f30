"""Feedback: layers that all attend to one memory, which holds what every layer made of each past token."""

from formers.feedback.spec import Feedback

__all__ = ["Feedback"]
