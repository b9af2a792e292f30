"""The beginning of a long text."""

from collections.abc import Iterable, Iterator


class Beginning:
    """Documents up to a number of characters, the last one cut; walked through anew each time."""

    def __init__(self, texts: Iterable[str], most: int) -> None:
        self.texts, self.most = texts, most

    def __iter__(self) -> Iterator[str]:
        left = self.most
        for text in self.texts:
            if len(text) >= left:
                yield text[:left]
                return
            left -= len(text)
            yield text
