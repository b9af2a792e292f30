"""Streams: what they may be handed, what they refuse, and that a refusal leaves them as they were."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from small import LEARNED, ROLLING, SLOPES, VOCAB, awake, session

from formers import FormersError
from formers.native.engine.lower import lower
from formers.native.engine.run import Engine

BAD_CALLS: list[tuple[Any, Any, Any, str]] = [
    ([VOCAB], [0], None, "token 40 is outside the vocabulary of 0 to 39"),
    ([-1], [0], None, "token -1 is outside"),
    ([2**62], [0], None, "is outside the vocabulary"),
    ([2**63], [0], None, "outside the vocabulary|cannot take this|whole numbers"),
    ([1], [2], None, "stream 2 is not one of the 2"),
    ([1], [-1], None, "stream -1 is not one"),
    ([1, 2], [0], None, "one stream for each token"),
    ([1, 2, 3], [0, 1, 0], None, "the tokens of stream 0 do not stand together"),
    ([1], [0], [True, False], "whether its logits are wanted"),
    ([[1]], [0], None, "flat lists of whole numbers"),
    ([1.5], [0], None, "flat lists of whole numbers"),
    (["a"], [0], None, "flat lists of whole numbers"),
    ([None], [0], None, "flat lists of whole numbers"),
    ([1] * 25, [0] * 25, None, "has 24 positions and was given a token at position 24"),
]


@pytest.mark.parametrize(("tokens", "streams", "wanted", "words"), BAD_CALLS)
def test_a_call_that_cannot_be_is_refused_and_changes_nothing(
    tokens: Any, streams: Any, wanted: Any, words: str
) -> None:
    used, fresh = session(LEARNED, 2), session(LEARNED, 2)
    with pytest.raises(FormersError, match=words):
        used.step(tokens, streams, wanted)
    assert used.length(0) == used.length(1) == 0
    np.testing.assert_array_equal(used.read([3, 4]), fresh.read([3, 4]))


def test_no_tokens_give_no_logits() -> None:
    streams = session(LEARNED)
    assert streams.step([], []).shape == (0, VOCAB)
    with pytest.raises(FormersError, match="no tokens to read"):
        streams.read([])


def test_logits_that_nobody_wants_are_not_given() -> None:
    streams, alone = session(ROLLING), session(ROLLING)
    assert streams.step([1, 2, 3], [0] * 3, [False] * 3).shape == (0, VOCAB)
    alone.read([1, 2, 3])
    np.testing.assert_allclose(streams.read([4]), alone.read([4]), atol=1e-5)


def test_long_prompts_are_read_in_pieces() -> None:
    tokens = torch.randint(VOCAB, (300,)).tolist()
    for spec in (ROLLING, SLOPES):
        model = awake(spec)
        found = session(spec).step(tokens, [0] * 300)
        with torch.inference_mode():
            torch.testing.assert_close(
                torch.from_numpy(found), model(torch.tensor([tokens])).logits[0], atol=1e-4, rtol=1e-4
            )


def test_a_rolling_cache_does_not_grow() -> None:
    streams = session(ROLLING)
    streams.read([1])
    at_first = streams.cache_bytes
    streams.step([2] * 500, [0] * 500)
    assert streams.cache_bytes == at_first > 0


def test_a_reset_stream_begins_anew_and_gives_its_memory_back() -> None:
    streams = session(SLOPES, 2)
    before = streams.step([5, 6], [0, 1])
    streams.reset(0)
    streams.reset(1)
    assert streams.cache_bytes == streams.length(0) == 0
    np.testing.assert_array_equal(streams.step([5, 6], [0, 1]), before)
    with pytest.raises(FormersError, match="stream 7 is not one"):
        streams.reset(7)


def test_room_is_kept_to() -> None:
    streams = session(SLOPES, room=10)
    streams.read([1] * 8)
    with pytest.raises(FormersError, match="would have 13 tokens, and there is room for 10"):
        streams.write([1], [0], count=5)
    streams.read([1] * 2)
    with pytest.raises(FormersError, match="would have 11 tokens"):
        streams.read([1])


@pytest.mark.parametrize("count", [0, -1, 2**20 + 1, 2**70])
def test_a_number_of_tokens_that_cannot_be_written_is_refused(count: int) -> None:
    with pytest.raises(FormersError, match=r"can be written|cannot take this"):
        session(SLOPES).write([1], [0], count=count)


@pytest.mark.parametrize(
    "given", [{"streams": 0}, {"streams": 2**40}, {"room": -1}, {"threads": 0}, {"threads": 10**6}]
)
def test_a_session_that_cannot_be_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(FormersError, match=r"there can be 1 to|cannot have room"):
        Engine(lower(awake(SLOPES))).session(**given)


def test_writing_takes_the_likeliest_token_each_time() -> None:
    streams, others = session(ROLLING, 2), session(ROLLING, 2)
    (first, second) = streams.write([3, 9], [1, 0], count=12)
    tokens = [3, 9]
    for step in range(12):
        tokens = others.step(tokens, [1, 0]).argmax(1).tolist()
        assert [first[step], second[step]] == tokens
    assert streams.length(0) == streams.length(1) == 12


def test_writing_ends_with_a_stop_and_the_others_go_on() -> None:
    whole = session(ROLLING, 2).write([3, 9], [1, 0], count=12)
    stop = whole[0][4]
    ended = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
    assert session(ROLLING, 2).write([3, 9], [1, 0], count=12, stops=[stop, 10**9]) == ended


def test_logits_that_are_not_finite_end_the_writing_in_words() -> None:
    model = awake(SLOPES)
    with torch.no_grad():
        model.norm.weight.fill_(torch.nan)
    with pytest.raises(FormersError, match="not finite"):
        Engine(lower(model)).session().write([1], count=3)


def test_what_is_not_a_given_cache_takes_nothing() -> None:
    streams = session(SLOPES)
    for cache, data in (
        (0, np.zeros((4, 3, 8))),
        (99, np.zeros((4, 3, 8))),
        (-1, np.zeros((4, 3, 8))),
        (0, np.zeros(3)),
    ):
        with pytest.raises(FormersError, match="cache"):
            streams.give(cache, 0, data)


def test_threads_wait_for_one_another() -> None:
    streams, alone = session(SLOPES, 4), session(SLOPES)
    expected = [alone.read([7])] + [alone.read([n]) for n in range(30)]
    found: dict[int, list[np.ndarray]] = {}

    def write(stream: int) -> None:
        found[stream] = [streams.read([7], stream)] + [streams.read([n], stream) for n in range(30)]

    threads = [threading.Thread(target=write, args=(stream,)) for stream in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in range(4):
        np.testing.assert_allclose(found[stream], expected, atol=1e-5)


def test_several_threads_of_one_session_give_what_one_gives() -> None:
    engine = Engine(lower(awake(LEARNED)))
    one, four = engine.session(threads=1), engine.session(threads=4)
    tokens = list(range(20))
    np.testing.assert_allclose(one.step(tokens, [0] * 20), four.step(tokens, [0] * 20), atol=1e-6)


def test_a_profile_tells_where_the_time_went() -> None:
    streams = session(ROLLING)
    with streams.profiled() as spent:
        streams.read([1, 2, 3])
    program = streams.engine.program
    assert [part.operation for part in spent] == [op.name for op in program.ops]
    assert all(part.seconds > 0 for part in spent)
    head = spent[-1]
    assert head.label == "UntiedLayer" and head.bytes == VOCAB * program.matrices[-1].stride
    assert {part.label for part in spent if part.operation == "gate"} == {"BlockLayer/GLULayer"}
    assert streams.engine.session().read([1, 2, 3]).tolist() == session(ROLLING).read([1, 2, 3]).tolist()
    with streams.profiled() as again:
        pass
    assert sum(part.seconds for part in again) == 0
