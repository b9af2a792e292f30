"""However a sequence is cut into calls, the logits are those of one pass, with and without padding."""

import pytest
import torch
from subjects import DECODERS, SPECS, Stream, build, tokens

LENGTH = 23


def run(stream: Stream, inputs: torch.Tensor, cuts: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    state, pieces = stream.begin(), []
    for start, stop in zip([0, *cuts], [*cuts, inputs.shape[1]], strict=True):
        logits, state = stream.piece(inputs[:, start:stop], state, None if mask is None else mask[:, start:stop])
        pieces.append(logits)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("cuts", [list(range(1, LENGTH)), [1], [7], [16, 17, 18], [5, 10, 15, 20]], ids=str)
def test_pieces_equal_the_whole(name: str, cuts: list[int]) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, LENGTH)
    with torch.no_grad():
        torch.testing.assert_close(run(stream, inputs, cuts), stream.whole(inputs))


@pytest.mark.parametrize("name", DECODERS)
def test_pieces_equal_the_whole_with_gradients_on(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, LENGTH)
    torch.testing.assert_close(run(stream, inputs, [6, 7, 15]), stream.whole(inputs))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("cuts", [list(range(1, LENGTH)), [4], [11, 12]], ids=str)
def test_ragged_rows_stream_too(name: str, cuts: list[int]) -> None:
    """Padding on the left of one row, on the right of another, and in the middle of a third."""
    stream, inputs = Stream(build(SPECS[name]), 4), tokens(4, LENGTH)
    mask = torch.ones(4, LENGTH, dtype=torch.bool)
    mask[0, :8] = False
    mask[1, 15:] = False
    mask[2, 6:13] = False
    with torch.no_grad():
        streamed, whole = run(stream, inputs, cuts, mask), stream.whole(inputs, mask)
    torch.testing.assert_close(streamed[mask], whole[mask])


@pytest.mark.parametrize("name", DECODERS)
def test_an_old_state_survives_two_continuations(name: str) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, LENGTH)
    other = (inputs + 3) % 40
    with torch.no_grad():
        _, state = stream.piece(inputs[:, :9], stream.begin())
        _, longer = stream.piece(inputs[:, 9:10], state)
        wanted = stream.whole(torch.cat([inputs[:, :9], other[:, 9:12]], 1))[:, 9:]
        branch, _ = stream.piece(other[:, 9:12], state)
        torch.testing.assert_close(branch, wanted)
        rest, _ = stream.piece(inputs[:, 10:], longer)
        torch.testing.assert_close(rest, stream.whole(inputs)[:, 10:])


@pytest.mark.parametrize("name", DECODERS)
def test_a_state_serves_inference_and_training(name: str) -> None:
    """A state made without gradients can be continued with them, and the other way round."""
    stream, inputs = Stream(build(SPECS[name]), 1), tokens(1, 12)
    whole = stream.whole(inputs)
    with torch.inference_mode():
        _, state = stream.piece(inputs[:, :5], stream.begin())
        _, state = stream.piece(inputs[:, 5:6], state)
    with torch.no_grad():
        middle, state = stream.piece(inputs[:, 6:9], state)
        rest, _ = stream.piece(inputs[:, 9:], state)
    torch.testing.assert_close(torch.cat([middle, rest], 1), whole[:, 6:])
