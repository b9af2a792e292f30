"""The laws of decoding on real members, tiny and in float64."""

import pytest
import torch
from torch.testing import assert_close

from formers.decode import GREEDY, Sampling, beam_search, generate
from formers.decode import prompt as prompt_file
from formers.errors import FormersError
from formers.family import MEMBERS

PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 9], [0, 4, 2, 8]]
STOP = [5, 11, 23]


def built(name):
    torch.manual_seed(0)
    member = MEMBERS[name]
    model = member.make(**member.small).build().double()
    with torch.no_grad():  # far from their beginning, so that what a model writes depends on everything it read
        for parameter in model.parameters():
            parameter += (0.1 if parameter.dim() == 1 else 0.3) * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(params=["gpt", "gpt2", "llama", "transformer"])
def model(request):
    return built(request.param)


def whole_pass(model, prompt, written):
    """The logits of one pass at each place of what was written behind a prompt, or from token 1 for a source."""
    prompt = torch.tensor([prompt])
    with torch.no_grad():
        if hasattr(model, "start"):
            return model(prompt, torch.tensor([[1, *written[:-1]]])).logits[0]
        row = torch.cat([prompt, torch.tensor([written[:-1]], dtype=torch.int64)], 1)
        return model(row, logits_at=slice(-len(written), None)).logits[0]


def test_greedy_equals_whole_passes(model):
    for prompt, result in zip(PROMPTS, generate(model, PROMPTS, max_new=12, sampling=GREEDY, start=1), strict=True):
        assert whole_pass(model, prompt, result.tokens).argmax(-1).tolist() == result.tokens


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_row_alone_equals_the_row_in_a_batch(model, temperature):
    sampling = Sampling(temperature, top_p=0.9, repetition_penalty=1.5)
    free = generate(model, PROMPTS, max_new=25, sampling=sampling, start=1, seed=2)
    stop = [free[1].tokens[3], free[2].tokens[6]]  # so that rows end at different times
    together = generate(model, PROMPTS, max_new=25, sampling=sampling, stop=stop, start=1, seed=2)
    assert len({len(result.tokens) for result in together}) > 1
    for prompt, result in zip(PROMPTS, together, strict=True):
        (alone,) = generate(model, [prompt], max_new=25, sampling=sampling, stop=stop, start=1, seed=result.seed)
        assert alone == result


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_prompts_may_be_read_in_chunks(model, chunk, monkeypatch):
    whole = generate(model, PROMPTS, max_new=6, sampling=GREEDY, start=1)
    monkeypatch.setattr(prompt_file, "CHUNK", chunk)
    assert generate(model, PROMPTS, max_new=6, sampling=GREEDY, start=1) == whole


def test_a_beam_of_one_is_greedy(model):
    greedy = generate(model, PROMPTS, max_new=12, sampling=GREEDY, stop=STOP, start=1)
    found = beam_search(model, PROMPTS, width=1, max_new=12, stop=STOP, start=1)
    assert [(best.tokens, best.finish) for (best,) in found] == [(row.tokens, row.finish) for row in greedy]


def test_beams_of_a_batch_equal_those_alone_and_score_what_a_whole_pass_gives(model):
    settings = {"width": 4, "best": 4, "max_new": 10, "stop": 5, "start": 1}
    for prompt, together in zip(PROMPTS, beam_search(model, PROMPTS, **settings), strict=True):
        (alone,) = beam_search(model, [prompt], **settings)
        assert [one.tokens for one in alone] == [one.tokens for one in together]
        for one in together:
            written = one.tokens + [5] * (one.finish == "stop")
            chances = whole_pass(model, prompt, written).log_softmax(-1)
            assert_close(one.log_probability, float(chances[range(len(written)), written].sum()))


def test_learned_positions_end_each_row_at_the_models_length():
    model = built("gpt2")
    length = model.spec.max_length
    results = generate(model, [[1] * length, [1] * (length - 2), [2]], max_new=500)
    assert [len(result.tokens) for result in results] == [1, 3, length]
    assert {result.finish for result in results} == {"length"}
    with pytest.raises(FormersError, match=f"{length + 1} tokens and the model reads at most {length}"):
        generate(model, [[1] * (length + 1)], max_new=1)


def test_an_encoder_cannot_write():
    member = MEMBERS["bert"]
    with pytest.raises(FormersError, match="bert cannot write on"):
        generate(member.make(**member.small).build(), [[1]], max_new=1)
