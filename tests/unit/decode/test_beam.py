from itertools import product

import pytest
import torch
from torch.testing import assert_close

from formers.data.tokenizer import ByteTokenizer
from formers.decode import GREEDY, beam_search, generate
from formers.decode.hypotheses import length_penalty
from formers.errors import FormersError

PROMPTS = [[3], [1, 2, 3, 0], [1, 1]]
END = 2


def log_probability(model, prompt, written, start):
    """Of what was written, in one whole pass."""
    source = hasattr(model, "start")
    context = [start] if source else list(prompt)
    with torch.inference_mode():
        state = model.start(torch.tensor([prompt])) if source else None
        row = torch.tensor([context + written[:-1]])
        logits = model.step(row, state, logits_at=slice(-len(written), None)).logits[0]
    return float(logits.log_softmax(-1)[range(len(written)), written].sum())


def every_way(model, prompt, vocab, longest, alpha, start):
    """(score, tokens) of every hypothesis that ends, best first, and of every one that does not end in time."""
    ended, cut = [], []
    others = [token for token in range(vocab) if token != END]
    for length in range(1, longest + 1):
        for body in product(others, repeat=length - 1):
            written = [*body, END]
            ended.append((log_probability(model, prompt, written, start) / length_penalty(length, alpha), list(body)))
    for body in product(others, repeat=longest):
        total = log_probability(model, prompt, list(body), start)
        cut.append((total / length_penalty(longest, alpha), list(body)))
    return sorted(ended, reverse=True), sorted(cut, reverse=True)


@pytest.mark.parametrize("kind", ["writer", "translator"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("best", [1, 9])
def test_a_wide_beam_equals_trying_everything(kind, alpha, best, request):
    model = request.getfixturevalue(kind)(4, seed=1)
    found = beam_search(model, PROMPTS, width=150, max_new=4, alpha=alpha, best=best, stop=END, start=0)
    for prompt, hypotheses in zip(PROMPTS, found, strict=True):
        ended, _ = every_way(model, prompt, 4, 4, alpha, 0)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [tokens for _, tokens in ended[:best]]
        assert_close([hypothesis.score for hypothesis in hypotheses], [score for score, _ in ended[:best]])
        assert {hypothesis.finish for hypothesis in hypotheses} == {"stop"}


def test_unfinished_hypotheses_fill_up_behind_the_ended_ones(writer):
    model = writer(3, seed=1)
    (found,) = beam_search(model, [[1]], width=40, max_new=3, best=20, stop=END)
    ended, cut = every_way(model, [1], 3, 3, 0.6, None)
    assert (len(ended), len(cut)) == (7, 8)
    assert [hypothesis.tokens for hypothesis in found] == [tokens for _, tokens in ended + cut]
    assert [hypothesis.finish for hypothesis in found] == ["stop"] * 7 + ["limit"] * 8
    assert_close([hypothesis.score for hypothesis in found], [score for score, _ in ended + cut])


def one_by_one(model, prompt, width, longest, alpha, best):
    """Beam search in plain lists, without stopping early: (score, tokens, ended), best first."""
    ended, live = [], [(0.0, [])]
    for _ in range(longest):
        grown = []
        for _, tokens in live:
            for token in range(model.spec.vocab):
                grown.append((log_probability(model, prompt, [*tokens, token], 0), [*tokens, token]))
        kept = sorted(grown, reverse=True)[: width - len(ended)]
        ended += [(total, tokens) for total, tokens in kept if tokens[-1] == END]
        live = [(total, tokens) for total, tokens in kept if tokens[-1] != END]
    scored = [(total / length_penalty(len(tokens), alpha), tokens[:-1]) for total, tokens in ended]
    rest = [(total / length_penalty(longest, alpha), tokens) for total, tokens in live]
    return (sorted(scored, reverse=True) + sorted(rest, reverse=True))[:best]


@pytest.mark.parametrize("kind", ["writer", "translator"])
@pytest.mark.parametrize(("width", "best"), [(2, 1), (2, 2), (3, 2), (5, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_equals_the_search_one_by_one(kind, width, best, seed, request):
    model = request.getfixturevalue(kind)(5, seed=seed)
    found = beam_search(model, PROMPTS, width=width, max_new=6, best=best, stop=END, start=0)
    for prompt, hypotheses in zip(PROMPTS, found, strict=True):
        expected = one_by_one(model, prompt, width, 6, 0.6, best)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [tokens for _, tokens in expected]
        assert_close([hypothesis.score for hypothesis in hypotheses], [score for score, _ in expected])


@pytest.mark.parametrize("kind", ["writer", "translator"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_one_is_greedy(kind, alpha, seed, request):
    model = request.getfixturevalue(kind)(12, seed=seed)
    stop = [4, 7]
    greedy = generate(model, PROMPTS, max_new=12, sampling=GREEDY, stop=stop, start=0)
    found = beam_search(model, PROMPTS, width=1, max_new=12, alpha=alpha, stop=stop, start=0)
    assert [(best.tokens, best.finish) for (best,) in found] == [(row.tokens, row.finish) for row in greedy]


@pytest.mark.parametrize("kind", ["writer", "translator"])
@pytest.mark.parametrize("width", [2, 4])
def test_scores_are_those_of_a_whole_pass(kind, width, request):
    model = request.getfixturevalue(kind)(12, seed=5)
    found = beam_search(model, PROMPTS, width=width, max_new=9, best=width, stop=END, start=0)
    for prompt, hypotheses in zip(PROMPTS, found, strict=True):
        assert len(hypotheses) == width == len({tuple(hypothesis.tokens) for hypothesis in hypotheses})
        for hypothesis in hypotheses:
            written = hypothesis.tokens + [END] * (hypothesis.finish == "stop")
            total = log_probability(model, prompt, written, 0)
            assert_close(hypothesis.log_probability, total)
            assert_close(hypothesis.score, total / length_penalty(len(written), 0.6))


@pytest.mark.parametrize("kind", ["writer", "translator"])
def test_a_source_alone_equals_the_source_in_a_batch(kind, request):
    model = request.getfixturevalue(kind)(12, seed=8)
    settings = {"width": 3, "max_new": 15, "best": 3, "stop": [END, 5], "start": 0}
    together = beam_search(model, PROMPTS, **settings)
    for prompt, hypotheses in zip(PROMPTS, together, strict=True):
        (alone,) = beam_search(model, [prompt], **settings)
        assert [(one.tokens, one.finish) for one in alone] == [(one.tokens, one.finish) for one in hypotheses]
        assert_close([one.score for one in alone], [one.score for one in hypotheses])


def test_a_wider_beam_finds_what_greedy_misses(writer):
    model = writer(4)
    with torch.no_grad():
        model.table.zero_()
        model.table[0] = torch.tensor([0.0, 1.0, -9.0, 0.9])  # 1 looks best ...
        model.table[1] = torch.tensor([0.0, 0.0, 0.0, 0.0])  # ... but leads nowhere
        model.table[3] = torch.tensor([0.0, 0.0, 30.0, 0.0])  # 3 ends at once
    ((narrow,),) = beam_search(model, [[0]], width=1, max_new=2, stop=END)
    ((wide,),) = beam_search(model, [[0]], width=2, max_new=2, stop=END)
    assert narrow.tokens[0] == 1 and (wide.tokens, wide.finish) == ([3], "stop")


def test_the_search_ends_when_no_live_hypothesis_can_win(writer):
    model = writer(4)
    with torch.no_grad():
        model.table.zero_()
        model.table[:, END] = 30.0
    ((best,),) = beam_search(model, [[0]], width=3, max_new=500, stop=END)
    assert (best.tokens, best.finish) == ([], "stop")
    assert len(model.rows_read) == 1


def test_the_length_penalty_decides_whether_to_go_on(writer):
    """Ending at once costs 0.60 nats; ending one token later costs 0.80, which is less by length where alpha is 2."""
    model = writer(4)
    with torch.no_grad():
        model.table[0] = torch.tensor([1e-30, 0.45, 0.55, 1e-30]).log()
        model.table[1] = torch.tensor([-60.0, -60.0, 200.0, -60.0])
    for alpha, tokens, cost in ((0.0, [], 0.5978), (2.0, [1], 0.7985)):
        ((best,),) = beam_search(model, [[0]], width=2, max_new=2, stop=END, alpha=alpha)
        assert best.tokens == tokens
        assert_close(best.log_probability, -cost, atol=1e-4, rtol=0)


def test_the_models_limit_cuts_each_prompt_at_its_own_length(writer):
    found = beam_search(writer(9, max_length=6), [[1], [1, 2, 3]], width=3, max_new=50, stop=[])
    assert [(len(best.tokens), best.finish) for (best,) in found] == [(6, "length"), (4, "length")]


def test_rows_of_the_model_are_only_the_live_places(translator):
    model = translator(30, seed=3)
    beam_search(model, PROMPTS, width=4, max_new=20, stop=list(range(0, 30, 3)), start=1)
    assert model.rows_read[0] == 3
    assert model.rows_read[1] <= 12
    assert sorted(model.rows_read[1:], reverse=True) == model.rows_read[1:]
    assert model.rows_read[-1] < 12


def test_text_and_end_come_from_the_tokenizer(writer):
    letters = ByteTokenizer()
    model = writer(letters.vocab, seed=4)
    ((best,),) = beam_search(model, [letters.encode("hi")], width=2, max_new=5, tokenizer=letters)
    assert best.text == letters.decode(best.tokens)


def test_half_precision_is_summed_in_single(writer):
    model = writer(12).bfloat16()
    ((best,),) = beam_search(model, [[1]], width=2, max_new=3)
    assert best.score < 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0, "best": 1}, "width 0"),
        ({"best": 3}, "best 3"),
        ({"best": 0}, "best 0"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"stop": ["\n"], "tokenizer": ByteTokenizer(())}, "stops at ids"),
        ({"max_new": 0}, "max_new=0"),
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
    ],
)
def test_wrong_calls_are_refused_with_a_reason(writer, changes, message):
    with pytest.raises(FormersError, match=message):
        beam_search(writer(12), **({"prompts": [[1]], "width": 2, "max_new": 3} | changes))
