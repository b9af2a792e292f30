"""Any length works, up to a limit that the spec states; past it there is one clear error."""

import pytest
import torch
from subjects import DECODERS, LIMITED, SPECS, Stream, build, tokens

from formers import FormersError


@pytest.mark.parametrize("name", list(SPECS))
def test_any_length(name: str) -> None:
    stream = Stream(build(SPECS[name]), 1)
    longest = SPECS[name].max_length or 131
    for length in (1, 2, 3, 7, 13, 31, longest):
        with torch.no_grad():
            assert stream.whole(tokens(1, length)).isfinite().all()


@pytest.mark.parametrize("name", LIMITED)
def test_past_the_end_is_an_error_that_names_the_limit(name: str) -> None:
    stream, limit = Stream(build(SPECS[name]), 2), SPECS[name].max_length
    too_long = tokens(2, limit + 1)
    with pytest.raises(FormersError, match=f"has {limit} positions"):
        stream.whole(too_long)
    mask = torch.ones_like(too_long, dtype=torch.bool)
    mask[0, 0] = False
    with pytest.raises(FormersError, match=f"has {limit} positions"):
        stream.whole(too_long, mask)
    mask[1, 3] = False
    assert stream.whole(too_long, mask).isfinite().all()


@pytest.mark.parametrize("name", [n for n in LIMITED if n in DECODERS])
def test_a_stream_ends_where_its_positions_do(name: str) -> None:
    stream, limit = Stream(build(SPECS[name]), 1), SPECS[name].max_length
    _, state = stream.piece(tokens(1, limit), stream.begin())
    with pytest.raises(FormersError, match=f"has {limit} positions"):
        stream.piece(tokens(1, 1), state)
