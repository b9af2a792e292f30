import pytest
import torch
from torch.testing import assert_close

from formers.decode.sampling import GREEDY, Sampling, choose, likeliest, row_seeds, uniforms, weigh
from formers.errors import FormersError

WRONG = [
    {"temperature": -1},
    {"temperature": 1e-9},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"top_k": 0},
    {"top_k": 1.5},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"min_p": -0.1},
    {"min_p": 2},
    {"repetition_penalty": 0},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_wrong_value_is_named(fields):
    (name,) = fields
    with pytest.raises(FormersError, match=f"{name}=.* cannot be used to sample"):
        Sampling(**fields)


def probabilities(logits, sampling, history):
    """What `choose` draws by, over the whole vocabulary, from evenly spaced draws."""
    draws = (torch.arange(4000) + 0.5) / 4000
    ids = choose(logits.expand(len(draws), -1), sampling, draws, history.expand(len(draws), -1))
    return torch.bincount(ids, minlength=logits.shape[-1]) / len(draws)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6),
        Sampling(top_k=3),
        Sampling(top_p=0.7),
        Sampling(min_p=0.2),
        Sampling(repetition_penalty=1.7),
        Sampling(temperature=1.3, top_k=9, top_p=0.8, min_p=0.1, repetition_penalty=1.3),
    ],
    ids=str,
)
def test_draws_follow_the_distribution_of_transformers(sampling):
    process = pytest.importorskip("transformers.generation.logits_process")
    torch.manual_seed(0)
    history = torch.tensor([[1, 1, 4, 7]])
    for _ in range(5):
        logits = torch.randn(1, 12) * 2
        steps = [process.RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))]
        steps += [process.TemperatureLogitsWarper(float(sampling.temperature))]
        steps += [process.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
        steps += [process.TopPLogitsWarper(sampling.top_p)] if sampling.top_p else []
        steps += [process.MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
        theirs = process.LogitsProcessorList(steps)(history, logits.clone()).softmax(-1)[0]
        ours = probabilities(logits, sampling, history)
        assert_close(ours, theirs, atol=3e-4, rtol=0)
        assert ((ours == 0) >= (theirs == 0)).all()


@pytest.mark.parametrize("sampling", [Sampling(top_k=3), Sampling(top_p=0.7), Sampling(min_p=0.2)], ids=str)
def test_each_row_of_a_batch_is_filtered_by_itself(sampling):
    torch.manual_seed(0)
    logits = torch.randn(4, 12) * torch.tensor([[0.1], [1.0], [3.0], [9.0]])
    weights, ids = weigh(logits, sampling)
    for row in range(4):
        alone, alone_ids = weigh(logits[row : row + 1], sampling)
        assert_close(weights[row : row + 1], alone)
        if ids is not None:
            assert_close(ids[row : row + 1], alone_ids)


def test_greedy_is_the_argmax_whatever_else_is_set():
    torch.manual_seed(0)
    logits = torch.randn(5, 40)
    assert_close(choose(logits, GREEDY), logits.argmax(-1))
    assert_close(choose(logits, Sampling(temperature=0, top_k=4, top_p=0.1)), logits.argmax(-1))
    assert_close(likeliest(logits.double()), logits.argmax(-1))


def test_greedy_heeds_the_repetition_penalty():
    logits = torch.tensor([[3.0, 2.9, -1.0], [-3.0, -1.0, -1.5]])
    history = torch.tensor([[0, 0], [1, 1]])
    assert choose(logits, Sampling(temperature=0, repetition_penalty=2.0), history=history).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_precision_of_logits(dtype):
    logits = torch.tensor([[0.0, 5.0, 1.0]], dtype=dtype)
    assert choose(logits, GREEDY).tolist() == [1]
    assert choose(logits, Sampling(top_k=1, top_p=0.5, min_p=0.5), torch.tensor([0.99])).tolist() == [1]


def test_the_border_draws_fall_on_tokens_that_were_kept():
    logits = torch.tensor([[float("-inf"), 1.0, 0.0, float("-inf")]] * 2)
    draws = torch.tensor([0.0, 1 - 2**-24])
    assert choose(logits, Sampling(), draws).tolist() == [1, 2]


def test_extremes_keep_one_token():
    logits = torch.tensor([[0.0, 1.0, 0.5]])
    for sampling in (Sampling(top_p=1e-9), Sampling(min_p=1.0), Sampling(top_k=1), Sampling(temperature=1e-6)):
        for draw in (0.0, 0.999):
            assert choose(logits, sampling, torch.tensor([draw])).tolist() == [1]


def test_filters_that_keep_everything_change_nothing():
    torch.manual_seed(0)
    logits, draws = torch.randn(50, 12), torch.rand(50)
    wide = Sampling(top_k=12, top_p=1.0, min_p=0.0)
    assert_close(choose(logits, wide, draws), choose(logits, Sampling(), draws))


def test_uniform_numbers_depend_on_their_row_seed_and_column_alone():
    seeds = row_seeds(5, 3)
    table = uniforms(seeds, 40)
    assert seeds[0] == 5 and len(set(seeds)) == 3
    assert_close(uniforms(seeds[2:], 40), table[2:])
    assert_close(uniforms(seeds, 7), table[:, :7])
    assert len(set(table.flatten().tolist())) > 110
    assert table.min() >= 0 and table.max() < 1


def test_sampling_without_chance_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="uniform"):
        choose(torch.zeros(1, 3), Sampling())
