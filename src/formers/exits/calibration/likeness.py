"""How unlike two texts are: 1 minus the F1 of their longest common subsequence, ROUGE-L (Lin 2004), of tokens."""

from collections.abc import Sequence


def unlike(one: Sequence[int], other: Sequence[int]) -> float:
    """Between 0, for texts that are the same, and 1, for texts that have nothing in common. Empty texts are the same."""
    if list(one) == list(other):
        return 0.0
    return 1 - 2 * common(one, other) / (len(one) + len(other))


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common subsequence."""
    above = [0] * (len(other) + 1)
    for token in one:
        row = [0]
        for place, met in enumerate(other):
            row.append(above[place] + 1 if met == token else max(above[place + 1], row[place]))
        above = row
    return above[-1]
