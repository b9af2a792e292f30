"""Every causal member: save its state, load it, go on, and it is as if it had gone on."""

from pathlib import Path

import pytest
import torch
from subjects import DECODERS, SPECS, Stream, build, tokens

from formers import load_state, save_state


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("ragged", [False, True], ids=["whole rows", "padding"])
def test_a_saved_stream_goes_on(name: str, ragged: bool, tmp_path: Path) -> None:
    stream, inputs = Stream(build(SPECS[name]), 2), tokens(2, 17)
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[0, :4] = not ragged
    with torch.no_grad():
        _, state = stream.piece(inputs[:, :7], stream.begin(), mask[:, :7])
        _, state = stream.piece(inputs[:, 7:9], state, mask[:, 7:9])
        save_state(tmp_path / "state", state)
        again = load_state(tmp_path / "state")
        for start, stop in ((9, 10), (10, 17)):
            wanted, state = stream.piece(inputs[:, start:stop], state)
            found, again = stream.piece(inputs[:, start:stop], again)
            torch.testing.assert_close(found, wanted)
