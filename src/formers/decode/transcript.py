"""One row that is being written: its tokens and text so far, and whether it has come to an end."""

from collections.abc import Sequence
from dataclasses import dataclass

from formers.data.tokenizer import StreamDecoder, Tokenizer
from formers.decode.prompt import Finish
from formers.decode.stop import StopStrings
from formers.errors import FormersError


@dataclass(frozen=True)
class Generation:
    """What was written behind one prompt.

    tokens: the new ids, without the stop id; where a stop string ended the row, up to the token that completed it.
    text: the text of the tokens up to any stop string, or None where there was no tokenizer.
    finish: "stop" at a stop id or string, "length" where the model can read no further, "limit" at max_new.
    seed: draws this row again alone, with the same prompt and sampling.
    """

    tokens: list[int]
    text: str | None
    finish: Finish
    seed: int


@dataclass(frozen=True)
class Stops:
    """What ends a row: ids, which are never part of the text, and strings, at which the text is cut."""

    ids: frozenset[int]
    strings: tuple[str, ...]

    @classmethod
    def of(cls, stop: int | str | Sequence[int | str], tokenizer: Tokenizer | None, vocab: int) -> "Stops":
        """Sorted and checked; a tokenizer's end id always stops. Raises FormersError for what cannot stop a row."""
        given = (stop,) if isinstance(stop, (int, str)) else tuple(stop)
        strings = tuple(item for item in given if isinstance(item, str))
        ids = {item for item in given if not isinstance(item, str)}
        if "" in strings:
            raise FormersError("an empty stop string would stop before the first token; leave it out")
        if strings and tokenizer is None:
            raise FormersError(f"the stop string {strings[0]!r} needs a tokenizer; give one, or stop at ids")
        for odd in sorted(item for item in ids if not 0 <= item < vocab):
            raise FormersError(f"the stop id {odd} would never come; give one from 0 to {vocab - 1}")
        if tokenizer is not None and tokenizer.end is not None and tokenizer.end < vocab:
            ids.add(tokenizer.end)
        return cls(frozenset(ids), strings)


class Transcript:
    """Takes tokens one by one, and gives back the text that has become certain."""

    def __init__(self, stops: Stops, budget: tuple[int, Finish], seed: int, tokenizer: Tokenizer | None) -> None:
        self._stop_ids = stops.ids
        self._scan = StopStrings(stops.strings)
        self._room, self._full = budget
        self._seed = seed
        self._decoder = None if tokenizer is None else StreamDecoder(tokenizer)
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self.finish: Finish | None = None

    def add(self, token: int) -> str:
        """Write one token, and give the text that it makes certain. `finish` is set where the row ends with it."""
        piece = ""
        if token in self._stop_ids:
            self.finish = "stop"
        else:
            self._tokens.append(token)
            if self._decoder is not None:
                piece = self._scan.add(self._decoder.push(token))
            if self._scan.found:
                self.finish = "stop"
            elif len(self._tokens) == self._room:
                self.finish = self._full
        if self.finish is not None and not self._scan.found:
            piece += self._remainder()
        if piece:
            self._pieces.append(piece)
        return piece

    def result(self) -> Generation:
        """What was written; for a row that has ended."""
        if self.finish is None:
            raise RuntimeError("this row is still being written")
        text = None if self._decoder is None else "".join(self._pieces)
        return Generation(self._tokens, text, self.finish, self._seed)

    def _remainder(self) -> str:
        """The text that was held back for what might have followed."""
        if self._decoder is None:
            return ""
        piece = self._scan.add(self._decoder.flush())
        if self._scan.found:
            self.finish = "stop"
            return piece
        return piece + self._scan.rest()
