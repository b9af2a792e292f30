"""Where a command writes to."""

import os
from typing import NoReturn

from rich.console import Console

WIDE = 132  # columns of a table that goes into a file or a pipe


class Terminal(Console):
    """Standard output. In a pipe, lines are not broken at the width of a terminal that is not there."""

    def __init__(self) -> None:
        super().__init__(highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = WIDE

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `main`, as every other error."""
        raise BrokenPipeError
