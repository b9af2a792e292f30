import pytest
import torch

from formers.data.tokenizer import ByteTokenizer
from formers.decode import GREEDY, Sampling, beam_search, generate, stream, stream_batch
from formers.decode import prompt as prompt_file
from formers.errors import FormersError

PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7], [9, 9], [0, 4, 2, 8]]
WARM = Sampling(temperature=0.9, top_k=9, top_p=0.95, min_p=0.01, repetition_penalty=1.2)


def by_hand(model, prompt, count):
    """Greedy decoding, one whole pass for each token."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model.step(torch.tensor([tokens]), None).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_equals_whole_passes(writer):
    model = writer(20)
    results = generate(model, PROMPTS, max_new=12, sampling=GREEDY)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.tokens == by_hand(model, prompt, 12)
        assert (result.finish, result.text) == ("limit", None)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), WARM], ids=["greedy", "plain", "all"])
@pytest.mark.parametrize("kind", ["writer", "translator"])
def test_a_row_alone_equals_the_row_in_a_batch(kind, sampling, request):
    model = request.getfixturevalue(kind)(20)
    together = generate(model, PROMPTS, max_new=30, sampling=sampling, stop=[5, 11], start=0, seed=3)
    assert len({len(result.tokens) for result in together}) > 1
    for prompt, result in zip(PROMPTS, together, strict=True):
        (alone,) = generate(model, [prompt], max_new=30, sampling=sampling, stop=[5, 11], start=0, seed=result.seed)
        assert alone == result


def test_rows_that_have_ended_are_no_longer_read(writer):
    model = writer(20)
    results = generate(model, PROMPTS, max_new=30, sampling=Sampling(), stop=5, seed=1)
    steps = [len(result.tokens) + (result.finish == "stop") for result in results]
    reads = model.rows_read
    assert reads == [sum(count > step for count in steps) for step in range(max(steps))]


def test_seeds_repeat_and_rows_differ(writer):
    model = writer(20)
    first = generate(model, [[1]] * 4, max_new=15, seed=7)
    assert first == generate(model, [[1]] * 4, max_new=15, seed=7)
    assert len({tuple(result.tokens) for result in first}) == 4
    assert first != generate(model, [[1]] * 4, max_new=15, seed=8)


def test_more_tokens_go_on_where_fewer_ended(writer):
    model = writer(20)
    (short,), (long,) = (generate(model, [[1]], max_new=count, seed=7) for count in (5, 40))
    assert long.tokens[:5] == short.tokens


def test_finish_reasons(writer):
    model = writer(20, max_length=6)
    first = by_hand(writer(20), [1, 2], 9)
    (stopped,) = generate(model, [[1, 2]], max_new=9, sampling=GREEDY, stop=first[2])
    assert (stopped.finish, stopped.tokens) == ("stop", first[: first.index(first[2])])
    (limited,) = generate(model, [[1, 2]], max_new=5, sampling=GREEDY)
    assert (limited.finish, limited.tokens) == ("limit", first[:5])
    (full,) = generate(model, [[1, 2]], max_new=9, sampling=GREEDY)
    assert (full.finish, full.tokens) == ("length", first[:5])


def test_rows_of_a_batch_reach_the_models_limit_each_at_its_own_time(writer):
    results = generate(writer(20, max_length=7), PROMPTS, max_new=50, sampling=GREEDY)
    assert [len(result.tokens) for result in results] == [7, 1, 6, 4]
    assert {result.finish for result in results} == {"length"}


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_long_prompts_are_read_in_chunks(writer, monkeypatch, chunk):
    model = writer(20)
    whole = generate(model, PROMPTS, max_new=8, sampling=GREEDY)
    monkeypatch.setattr(prompt_file, "CHUNK", chunk)
    model.rows_read.clear()
    assert generate(model, PROMPTS, max_new=8, sampling=GREEDY) == whole
    assert len(model.rows_read) == -(-7 // chunk) + 7


def test_a_repetition_penalty_looks_at_the_whole_row(writer):
    model = writer(12)
    with torch.no_grad():
        model.table.abs_()  # no logit is negative, so that a seen token can never win
    strict = Sampling(temperature=0, repetition_penalty=1e9)
    for prompt, result in zip([[1], [2, 3]], generate(model, [[1], [2, 3]], max_new=9, sampling=strict), strict=True):
        row = prompt + result.tokens
        assert len(set(row)) == len(row)


def test_the_model_is_left_in_the_mode_that_it_was_in(writer):
    model = writer(20)
    model.extra = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model.train()
    model.extra[0].eval()
    pieces = stream(model, [1], max_new=4, tokenizer=ByteTokenizer(()), stop=())
    next(pieces, None)
    generate(model, [[1]], max_new=3)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not torch.is_inference_mode_enabled()


WORDS = ByteTokenizer()


def test_a_stream_gives_the_text_of_the_tokens(writer):
    model = writer(WORDS.vocab, seed=2)
    pieces = stream(model, WORDS.encode("to be"), max_new=40, tokenizer=WORDS, seed=4)
    text = "".join(pieces)
    (result,) = pieces.results
    assert text == result.text == WORDS.decode(result.tokens)
    assert [result] == generate(model, [WORDS.encode("to be")], max_new=40, tokenizer=WORDS, seed=4)


def test_a_stream_of_a_batch_tells_the_rows_apart(writer):
    model = writer(WORDS.vocab, seed=2)
    prompts = [WORDS.encode("to be"), WORDS.encode("or"), WORDS.encode("not")]
    pieces = stream_batch(model, prompts, max_new=30, tokenizer=WORDS, seed=4)
    texts = ["", "", ""]
    for row, piece in pieces:
        assert piece
        texts[row] += piece
    assert texts == [result.text for result in pieces.results]
    assert pieces.results == generate(model, prompts, max_new=30, tokenizer=WORDS, seed=4)


def test_pieces_come_as_soon_as_they_are_known(writer):
    model = writer(128)
    pieces = stream(model, [1], max_new=9, tokenizer=ByteTokenizer(()))
    for count in range(1, 4):
        next(pieces)
        assert len(model.rows_read) == count
    with pytest.raises(FormersError, match="not over yet"):
        _ = pieces.results


def test_a_stop_string_cuts_the_text_and_never_gets_out(writer):
    model = writer(128, seed=1)
    letters = ByteTokenizer(())
    (whole,) = generate(model, [[1]], max_new=30, tokenizer=letters, seed=6)
    stop = whole.text[11:15]
    assert whole.text.find(stop) == 11
    pieces = stream(model, [1], max_new=30, tokenizer=letters, seed=6, stop=["never", stop, 127])
    assert "".join(pieces) == whole.text[:11]
    (result,) = pieces.results
    assert (result.finish, result.text, result.tokens) == ("stop", whole.text[:11], whole.tokens[:15])


def test_a_stop_string_that_is_cut_off_by_the_limit_comes_out(writer):
    model = writer(128, seed=1)
    letters = ByteTokenizer(())
    (whole,) = generate(model, [[1]], max_new=12, tokenizer=letters, seed=6)
    (result,) = generate(model, [[1]], max_new=12, tokenizer=letters, seed=6, stop=whole.text[-3:] + "!")
    assert (result.finish, result.text) == ("limit", whole.text)


def test_half_a_character_at_the_end_is_shown_as_such(writer):
    model = writer(256)
    with torch.no_grad():
        model.table[1, 0xC3] = 50.0  # the two halves of an é follow each other
        model.table[0xC3, [0xA9, 0xC3]] = torch.tensor([100.0, -100.0], dtype=torch.float64)
        model.table[0xA9, [0xA9, 0xC3]] = torch.tensor([-100.0, 100.0], dtype=torch.float64)
    results = [
        generate(model, [[1]], max_new=count, tokenizer=ByteTokenizer(()), sampling=GREEDY)[0] for count in (4, 5)
    ]
    assert [result.text for result in results] == ["éé", "éé\N{REPLACEMENT CHARACTER}"]


def test_the_end_id_of_the_tokenizer_stops_and_is_the_start_of_an_empty_prompt(writer):
    model = writer(WORDS.vocab)
    with torch.no_grad():
        model.table[WORDS.end, ord("a")] = 50.0
        model.table[ord("a"), WORDS.end] = 500.0
    (result,) = generate(model, [[]], max_new=9, tokenizer=WORDS, sampling=GREEDY)
    assert (result.tokens, result.text, result.finish) == ([ord("a")], "a", "stop")


def test_a_tokenizer_may_have_an_end_id_that_the_model_lacks(writer):
    model = writer(WORDS.end)
    (result,) = generate(model, [[1]], max_new=5, tokenizer=WORDS)
    assert len(result.tokens) == 5
    ((best,),) = beam_search(model, [[1]], width=2, max_new=5, tokenizer=WORDS)
    assert best.finish == "limit"
    with pytest.raises(FormersError, match="no start or end id"):
        generate(model, [[]], max_new=5, tokenizer=WORDS)


def test_an_encoder_decoder_writes_from_the_start_id(translator):
    model = translator(20)
    results = generate(model, PROMPTS, max_new=6, sampling=GREEDY, start=4)
    for source, result in zip(PROMPTS, results, strict=True):
        with torch.inference_mode():
            tokens = [4]
            for _ in range(6):
                reply = model.step(torch.tensor([tokens]), model.start(torch.tensor([source])))
                tokens.append(int(reply.logits[0, -1].argmax()))
        assert result.tokens == tokens[1:]


def test_the_limits_of_both_sides_of_an_encoder_decoder_hold(translator):
    (result,) = generate(translator(20, max_length=3), [[1] * 9], max_new=6, start=0)
    assert (len(result.tokens), result.finish) == (3, "length")
    with pytest.raises(FormersError, match=r"10 tokens .* at most 9"):
        generate(translator(20, max_length=3), [[1] * 10], max_new=6, start=0)


WRONG = {
    "no prompts": ({"prompts": []}, "no prompts"),
    "empty prompt": ({"prompts": [[1], []]}, "prompt 1 is empty"),
    "id too high": ({"prompts": [[1], [2, 20]]}, "prompt 1 holds the id 20"),
    "id below zero": ({"prompts": [[-1]]}, "prompt 0 holds the id -1"),
    "not nested": ({"prompts": [1, 2]}, "prompt 0 is not a flat list"),
    "ragged": ({"prompts": [[[1], [1, 2]]]}, "prompt 0 is not a list of token ids"),
    "text": ({"prompts": ["hello"]}, "prompt 0 is not a list of token ids"),
    "fractions": ({"prompts": [[0.5]]}, "whole numbers"),
    "too long": ({"prompts": [[1] * 17]}, "17 tokens .* at most 16"),
    "nothing to write": ({"max_new": 0}, "max_new=0"),
    "start": ({"start": 20}, "start id 20"),
    "stop id": ({"stop": [3, 99]}, "stop id 99"),
    "empty stop": ({"stop": "", "tokenizer": ByteTokenizer(())}, "empty stop string"),
    "stop string without text": ({"stop": "x"}, "needs a tokenizer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused_with_a_reason(writer, name):
    changes, message = WRONG[name]
    with pytest.raises(FormersError, match=message):
        generate(writer(20, max_length=16), **({"prompts": [[1, 2]], "max_new": 3} | changes))


def test_a_stream_refuses_at_the_call(writer):
    with pytest.raises(FormersError, match="run from 0 to 19"):
        stream(writer(20), [20], max_new=3, tokenizer=WORDS)


def test_an_encoder_decoder_needs_a_start(translator):
    with pytest.raises(FormersError, match="needs an id to start from"):
        generate(translator(20), [[1]], max_new=3)


def test_logits_that_are_not_finite_are_told(writer):
    model = writer(20)
    with torch.no_grad():
        model.table[3, 3] = float("nan")
    with pytest.raises(FormersError, match="not finite"):
        generate(model, [[1], [3]], max_new=3)
