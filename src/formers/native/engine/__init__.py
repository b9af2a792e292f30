"""The native decode engine: a decoder is lowered once to operations over packed weights, which C++ runs token by token."""

from formers.native.engine.file import open_program, save_program
from formers.native.engine.lower import lower, outline
from formers.native.engine.program import Program
from formers.native.engine.run import Engine, Session, bandwidth

__all__ = ["Engine", "Program", "Session", "bandwidth", "lower", "open_program", "outline", "save_program"]
