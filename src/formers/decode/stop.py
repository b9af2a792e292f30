"""Finding stop strings in text that arrives in pieces."""

from collections.abc import Sequence


class StopStrings:
    """Passes text through until one of some strings is complete; nothing of that string is ever let out.

    What may be the beginning of a stop string is held back until the text goes on otherwise. Where the pieces are cut
    makes no difference to what comes out.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """The text that is now certain to stand before any stop string."""
        if not self._strings or not piece:
            return piece
        text, self._held = self._held + piece, ""
        starts = [(start + len(string), start) for string in self._strings if (start := text.find(string)) >= 0]
        if starts:
            self.found = True
            return text[: min(starts)[1]]  # the one that was complete first, however the pieces were cut
        cut = len(text) - max(_overlap(text, string) for string in self._strings)
        self._held = text[cut:]
        return text[:cut]

    def rest(self) -> str:
        """What was held back: the text is over, so it begins no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """The length of the longest end of `text` that begins `string`."""
    longest = min(len(text), len(string) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(string[:length])), 0)
