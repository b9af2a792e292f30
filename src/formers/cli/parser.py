"""Argument parsing as every subcommand does it."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from formers.distributed.environment import is_first


class Parser(argparse.ArgumentParser):
    """One subcommand's options; positional words and options may be mixed, and a misspelt option is told."""

    def __init__(self, name: str, told: str, examples: str) -> None:
        super().__init__(
            prog=f"formers {name}",
            description=f"{told[0].upper()}{told[1:]}.",
            epilog=f"examples:\n{examples.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options that the words choose. Exits with 2, and says why, if they cannot be understood."""
        chosen, rest = self.parse_known_intermixed_args(words)
        if rest:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
            self.error(f"{rest[0]!r} is not understood" + (f"; did you mean {near[0]}?" if near else ""))
        return chosen

    def error(self, message: str) -> NoReturn:
        """One line of what is wrong, one of what can be written."""
        if is_first():
            print(f"formers: {message}\n{self.format_usage().rstrip()}", file=sys.stderr)
        raise SystemExit(2)


def picture_file(word: str) -> Path:
    """The path of a picture to be written, for options that take one."""
    path = Path(word)
    if path.suffix != ".png":
        raise argparse.ArgumentTypeError(f"{word!r} is no picture; name a file that ends in .png")
    return path
