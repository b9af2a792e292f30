"""A line of progress for any stream of text."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn


def watched(documents: Iterable[str], title: str) -> Iterator[str]:
    """Pass the documents on and show on the terminal how much text went by, how fast, and for how long.

    Draws on standard error, and only where that is a terminal.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn(title), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        for document in documents:
            yield document
            progress.advance(task, len(document))
