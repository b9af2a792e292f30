"""Logs grow in place and are values all the same; caches stop growing where the pattern ends."""

import pytest
import torch

from formers import MLP, Attention, Block, Blocks, Causal, Decoder, Same, Window, make
from formers import state as states
from formers.places import Places
from formers.state import Log


def part(start: int, stop: int) -> torch.Tensor:
    return torch.arange(start, stop).float().view(1, 1, -1, 1).expand(2, 3, -1, 4)


def test_logs_that_share_a_beginning_do_not_disturb_each_other() -> None:
    one = Log(part(0, 3)).extend(part(3, 4))
    left, right = one.extend(part(4, 6)), one.extend(part(40, 43))
    torch.testing.assert_close(one.view, part(0, 4))
    torch.testing.assert_close(left.view, part(0, 6))
    torch.testing.assert_close(right.view, torch.cat([part(0, 4), part(40, 43)], 2))


def test_growing_is_in_place_until_the_room_ends() -> None:
    log, places = Log(part(0, 1)).extend(part(1, 2)), set()
    for i in range(2, 1000):
        log = log.extend(part(i, i + 1))
        places.add(log.view.data_ptr())
    torch.testing.assert_close(log.view, part(0, 1000))
    assert len(places) < 10


def test_the_last_of_a_log_can_grow() -> None:
    log = Log(part(0, 5))
    for i in range(5, 500):
        log = log.extend(part(i, i + 1)).last(4)
    torch.testing.assert_close(log.view, part(496, 500))
    assert log._buffer.data.shape[2] < 200


@pytest.mark.parametrize("pattern", [Causal() & Window(5), Causal() & Blocks(5)])
def test_a_cache_stops_growing_where_its_pattern_ends(pattern: Causal) -> None:
    model = Decoder("local", 10, 8, (Block((Attention(2, pattern=pattern), MLP(8))),)).build()
    state, sizes = None, []
    with torch.no_grad():
        for _ in range(40):
            state = model.step(torch.zeros(1, 1, dtype=torch.int64), state).state
            sizes.append(state.blocks[0][0].places.length)
    assert max(sizes) == 4
    with torch.no_grad():
        long = model(torch.zeros(1, 40, dtype=torch.int64)).state
    assert long.blocks[0][0].places.length == 4


def test_select_picks_rows_everywhere() -> None:
    model = make("gpt2", vocab=10, dim=8, depth=1, heads=2, length=16).build().eval()
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    with torch.no_grad():
        for mask in (None, torch.tensor([[False, True, True], [True, True, True]])):
            state = model(tokens, mask=mask).state
            picked = states.select(state, torch.tensor([1, 1, 0]))
            after = model.step(torch.tensor([[7], [7], [7]]), picked).logits
            wanted = model.step(torch.tensor([[7], [7]]), state).logits
            torch.testing.assert_close(after, wanted[[1, 1, 0]])
    assert {t.shape[0] for t in states.tensors(state)} == {2}


def test_marks_must_be_given_in_every_call_of_a_stream() -> None:
    marked = Places.run(0, 2, marks={"document": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match=r"\['document'\] were given in one call and not in another"):
        marked.join(Places.run(2, 1))


def test_a_stream_of_marked_tokens_keeps_documents_apart() -> None:
    attention = Attention(2, pattern=Causal() & Same("document"))
    model = Decoder("packed", 10, 8, (Block((attention, MLP(8))),)).build().eval()
    tokens, document = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        whole = model(tokens, marks={"document": document}).logits
        state = model(tokens[:, :3], marks={"document": document[:, :3]}).state
        rest = model.step(tokens[:, 3:], state, marks={"document": document[:, 3:]}, logits_at=slice(None)).logits
        torch.testing.assert_close(rest, whole[:, 3:])
        torch.testing.assert_close(whole[:, 2:], model(tokens[:, 2:], marks={"document": document[:, 2:]}).logits)
    with pytest.raises(ValueError, match="needs the mark 'document'"):
        model(tokens)
