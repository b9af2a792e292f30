"""Reformer and its encoder-decoder: built, trained, decoded, at any length and beside padding."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import ConfigError, FormersError, make
from formers.attention.lsh import LSHRule
from formers.call import Call
from formers.decode import GREEDY, generate
from formers.family import MEMBERS
from formers.family.content import local_attention
from formers.model import parameter_count
from formers.places import Places, keys, queries
from formers.report.cost import cost
from formers.spec import assign

VOCAB = 20
SMALL: dict[str, Any] = {
    "vocab": VOCAB, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "layers": ("local", "lsh"), "chunk": 4,
    "rounds": 2, "buckets": 4, "local_chunk": 3, "shape": (6, 8), "dropout": 0.0, "feed_forward_chunk": 7,
}  # fmt: skip
TRANSLATION: dict[str, Any] = {"vocab": VOCAB, "dim": 16, "depth": 2, "heads": 2, "hidden": 24, "dropout": 0.0}
SELECT = "blocks[0].blocks[1].sublayers[0].select"


def awake(spec: Any) -> nn.Module:
    """In double precision, with every parameter away from where it began."""
    torch.manual_seed(0)
    model = spec.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (0.1 if parameter.dim() == 1 else 0.3) * torch.randn_like(parameter)
    return model


def hashing(**changes: Any) -> Any:
    """A small Reformer whose hashing layer is changed."""
    spec = make("reformer", **SMALL)
    for name, value in changes.items():
        spec = assign(spec, f"{SELECT}.{name}={value!r}")
    return spec


def some_tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["reformer", "reformer_translation"])
def test_parameters_are_those_that_are_told(name: str) -> None:
    spec = make(name, **MEMBERS[name].small)
    assert cost(spec, 12).total.parameters == parameter_count(spec.build())


def test_layers_are_taken_in_turn() -> None:
    blocks = make("reformer", depth=7).blocks[0].blocks
    kinds = ["local" if block.sublayers[0].select is None else "lsh" for block in blocks]
    assert kinds == ["local", "local", "lsh", "local", "local", "local", "lsh"]


def test_a_local_chunk_meets_itself_and_the_one_before() -> None:
    at, pattern = Places.run(2, 11), local_attention(2, 4).pattern
    assert pattern is not None and pattern.causal
    visible = pattern.visible(queries(at), keys(at), torch.arange(2)[:, None, None])[0, 0]
    for q, k in itertools.product(range(2, 13), repeat=2):
        assert visible[q - 2, k - 2] == (k <= q and q // 4 - k // 4 in (0, 1))
    assert pattern.horizon == 8


@pytest.mark.parametrize("changes", [{"plain_below": 48}, {"plain_below": 0}, {"strict": True}], ids=str)
def test_any_length_in_a_padded_batch_is_the_row_alone(changes: dict[str, Any]) -> None:
    """Padding on either side of it, and in its middle."""
    model = awake(hashing(**changes))
    for length in range(1, 41):
        row = some_tokens(1, length, seed=length)[0]
        slots = torch.stack([torch.arange(length), torch.arange(length) + 40 - length, torch.arange(length)])
        slots[2, length // 2 :] += 40 - length
        tokens, mask = some_tokens(3, 40, seed=9), torch.zeros(3, 40, dtype=torch.bool)
        tokens, mask = tokens.scatter(1, slots, row.expand(3, -1)), mask.scatter(1, slots, True)
        with torch.no_grad():
            together, alone = model(tokens, mask=mask).logits, model(row[None]).logits[0]
        for i in range(3):
            torch.testing.assert_close(together[i][mask[i]], alone)


def test_with_buckets_held_fast_nothing_comes_from_later_tokens() -> None:
    """Later tokens move the borders of chunks, unless strict; no value flows."""
    model = awake(hashing(plain_below=0))
    stack, x = model.stack.blocks[0], torch.randn(2, 30, 16, dtype=torch.float64)
    call, other = Call(Places.run(0, 30)), torch.cat([x[:, :20], torch.randn(2, 10, 16, dtype=torch.float64)], 1)
    with torch.no_grad():
        first = stack(x, call)
        held = stack(other, call, choices=first.choices)
        free = stack(other, call)
    torch.testing.assert_close(held.y[:, :20], first.y[:, :20])
    assert (held.y[:, 20:] - first.y[:, 20:]).abs().min() > 0
    assert (free.y[:, :20] - first.y[:, :20]).abs().max() > 1e-3


def fall(model: nn.Module, loss_of: Any, steps: int = 40) -> tuple[float, float]:
    """The loss before and after some steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        loss = loss_of(step)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


@pytest.mark.parametrize("changes", [{"plain_below": 0}, {"strict": True}], ids=str)
def test_a_language_model_learns_a_text(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = hashing(**changes).build().train()
    text = some_tokens(1, 12).repeat(4, 4)

    def loss_of(step: int) -> Tensor:
        logits = model(text[:, :-1], seed=step, remember=False).logits
        return F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())

    before, after = fall(model, loss_of)
    assert before > 2.9 and after < 0.5 * before


@pytest.mark.parametrize("lsh", [False, True])
def test_an_encoder_decoder_learns_to_copy(lsh: bool) -> None:
    torch.manual_seed(0)
    model = make("reformer_translation", lsh=lsh, **TRANSLATION).build().train()
    source = some_tokens(4, 9)
    shifted = F.pad(source[:, :-1], (1, 0), value=0)

    def loss_of(step: int) -> Tensor:
        logits = model(source, shifted, seed=step, remember=False).logits
        return F.cross_entropy(logits.flatten(0, 1), source.flatten())

    before, after = fall(model, loss_of)
    assert before > 2.7 and after < 0.5 * before


PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 4, 4, 1], [9, 9]]


@pytest.mark.parametrize("changes", [{"strict": True}, {"plain_below": 48}], ids=str)
def test_decoding_strictly_or_plainly_is_one_pass(changes: dict[str, Any]) -> None:
    model = awake(hashing(**changes))
    for prompt, result in zip(PROMPTS, generate(model, PROMPTS, max_new=20, sampling=GREEDY), strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *result.tokens[:-1]]])).logits[0, -20:]
        assert logits.argmax(-1).tolist() == result.tokens


def test_decoding_by_buckets_is_near_one_pass_and_no_more() -> None:
    """A new token meets its buckets, as many tokens as in a full pass, but not those that share its chunk."""
    model, tokens = awake(hashing(plain_below=0)), some_tokens(8, 40)
    with torch.no_grad():
        whole, out = model(tokens).logits, model(tokens[:, :1])
        pieces = [out.logits]
        for t in range(1, 40):
            out = model.step(tokens[:, t : t + 1], out.state)
            pieces.append(out.logits)
    stepped = torch.cat(pieces, 1)
    torch.testing.assert_close(stepped[:, 0], whole[:, 0])
    off, apart = (stepped - whole).std(), (whole[:, 1:] - whole[:, :-1]).std()
    assert 0 < off < 0.5 * apart
    results = generate(model, PROMPTS, max_new=12, sampling=GREEDY)
    assert [len(result.tokens) for result in results] == [12, 12, 12]


def test_exact_streaming_is_refused_with_what_streams() -> None:
    with pytest.raises(ConfigError, match=r"LSH chooses from the whole sequence(?s:.*)fix: select="):
        make("reformer", **SMALL).build(streaming=True)
    make("reformer", **SMALL, strict=True).build(streaming=True)
    make("reformer_translation", **TRANSLATION).build(streaming=True)
    with pytest.raises(ConfigError, match="LSH chooses from the whole sequence"):
        make("reformer_translation", **TRANSLATION, lsh=True).build(streaming=True)


@pytest.mark.parametrize("lsh", [False, True])
def test_an_encoder_decoder_writes_greedily(lsh: bool) -> None:
    model = awake(make("reformer_translation", lsh=lsh, **TRANSLATION))
    results = generate(model, PROMPTS, max_new=10, sampling=GREEDY, start=1)
    for source, result in zip(PROMPTS, results, strict=True):
        written = torch.tensor([[1, *result.tokens[:-1]]])
        with torch.no_grad():
            assert model(torch.tensor([source]), written).logits[0].argmax(-1).tolist() == result.tokens


def test_hashing_encoders_and_decoders_take_any_length() -> None:
    spec = make("reformer_translation", lsh=True, chunk=4, rounds=2, **TRANSLATION)
    model = awake(spec)
    rules = [module for module in model.modules() if isinstance(module, LSHRule)]
    for rule in rules:
        assert rule.plain_below > 0
        rule.plain_below = 0
    for source, target in [(1, 1), (5, 17), (40, 3)]:
        logits = model(some_tokens(2, source), some_tokens(2, target)).logits
        assert logits.shape == (2, target, VOCAB) and logits.isfinite().all()


REFUSED = [
    ({"dims": (4, 8)}, r"the widths \(4, 8\) add up to 12, not to dim 16(?s:.*)dims=\(4, 12\)"),
    ({"shape": (6, 8, 2)}, "must name one length and one width for each axis"),
    ({"shape": (6, 0)}, "must name one length and one width for each axis"),
    ({"buckets": 7}, "7 buckets cannot be(?s:.*)buckets=8"),
    ({"buckets": (4, 3)}, r"3 buckets cannot be(?s:.*)buckets=\(4, 4\)"),
    ({"chunk": 0}, "chunks and rounds are at least 1"),
    ({"local_chunk": 0}, "blocks of 0 positions hold nothing"),
    ({"feed_forward_chunk": 0}, "chunks of 0 tokens never come to an end"),
    ({"strict": True, "buckets": None}, "strict hashing needs a number of buckets"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_bad_settings_are_refused_with_a_mend(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make("reformer", **SMALL | changes).build()


def test_layers_of_another_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no layers named 'full': layers=\('local', 'lsh'\)"):
        make("reformer", **SMALL | {"layers": ("local", "full")})


def test_past_the_product_of_the_axes_is_an_error_that_names_it() -> None:
    model = make("reformer", **SMALL).build()
    assert model(some_tokens(1, 48)).logits.shape == (1, 48, VOCAB)
    with pytest.raises(FormersError, match="this model has 48 positions"):
        model(some_tokens(1, 49))
