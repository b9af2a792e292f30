import pytest
from hypothesis import given
from hypothesis import strategies as st

from formers.decode.stop import StopStrings


def fed(strings, pieces):
    scan, out = StopStrings(strings), []
    for piece in pieces:
        out.append(scan.add(piece))
        if scan.found:
            return out, True
    return [*out, scan.rest()], False


def test_without_strings_text_passes_through():
    assert fed([], ["ab", "", "c"]) == (["ab", "", "c", ""], False)


def test_a_string_across_pieces_is_never_let_out():
    assert fed(["STOP"], ["so S", "T", "O", "P and more"]) == (["so ", "", "", ""], True)


def test_what_only_looked_like_a_beginning_is_let_out_late():
    assert fed(["aab"], ["xa", "a", "a", "c"]) == (["x", "", "a", "aac", ""], False)


def test_what_is_held_back_comes_out_at_the_end():
    assert fed(["\n\n"], ["one\n"]) == (["one", "\n"], False)


@pytest.mark.parametrize("pieces", [["abcd"], ["abc", "d"], ["a", "b", "c", "d"]])
def test_of_several_strings_the_one_complete_first_wins(pieces):
    out, found = fed(["abcd", "bc"], pieces)
    assert ("".join(out), found) == ("a", True)


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(st.text("ab", max_size=3), max_size=9))
def test_cuts_make_no_difference_and_nothing_of_a_stop_string_gets_out(strings, pieces):
    out, found = fed(strings, pieces)
    letters, letters_found = fed(strings, list("".join(pieces)))
    assert ("".join(out), found) == ("".join(letters), letters_found)
    ends = {"".join(pieces).find(string) + len(string) for string in strings if string in "".join(pieces)}
    assert found == bool(ends)
    assert not any(string in "".join(out) for string in strings)
    if not found:
        assert "".join(out) == "".join(pieces)
