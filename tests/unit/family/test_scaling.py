"""Scaling Transformers and Terraformer: their rows and presets, training, decoding, and what they refuse."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import ConfigError, make
from formers.decode import GREEDY, generate
from formers.family import MEMBERS
from formers.family.sparsity import POSITIONS
from formers.model import parameter_count
from formers.report.cost import cost
from formers.spec import assign

NAMES = ["scaling_transformer", "scaling_transformer_translation", "terraformer"]
ROWS: dict[str, tuple[str, ...]] = {
    "dense": (),
    "feed-forward": ("feed_forward",),
    "qkv": ("qkv",),
    "both": ("feed_forward", "qkv"),
    "all": ("feed_forward", "qkv", "loss"),
}
PROMPTS = [[3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 4, 4, 1], [9, 9]]


def small(name: str, **changes: Any) -> Any:
    return make(name, **MEMBERS[name].small | {"dropout": 0.0} | changes)


def awake(spec: Any) -> nn.Module:
    """In double precision, with every parameter away from where it began."""
    torch.manual_seed(0)
    model = spec.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def size(spec: Any) -> int:
    with torch.device("meta"):
        return parameter_count(spec.build())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", NAMES)
def test_each_row_is_one_argument_away_and_is_told_as_large_as_it_is(name: str, row: str) -> None:
    spec = small(name, sparse=ROWS[row], **({"layers": None} if name == "terraformer" else {}))
    told = repr(spec)
    assert ("SparseFF(" in told) == ("feed_forward" in ROWS[row])
    assert ("MultConv(" in told) == ("qkv" in ROWS[row])
    assert ("MultiplicativeHead(" in told) == ("loss" in ROWS[row])
    assert cost(spec, 12).total.parameters == parameter_count(spec.build())


def test_the_paper_spends_on_units_what_sparse_projections_save() -> None:
    def units(*sparse: str) -> int:
        return make("scaling_transformer", depth=1, sparse=sparse).blocks[0].sublayers[-1].hidden

    assert (units(), units("feed_forward"), units("qkv"), units("feed_forward", "qkv")) == (4096, 4096, 6144, 6144)


def counted_by_hand(dim: int, depth: int, hidden: int, vocab: int = 32_000, length: int = 2048) -> int:
    """A dense decoder of two attentions and one feed-forward in each block: matrices, biases, norms."""
    block = 2 * (4 * dim * dim + 4 * dim) + 2 * dim * hidden + hidden + dim + 3 * 2 * dim
    return depth * block + vocab * dim + length * dim + 2 * dim + vocab * dim + vocab


@pytest.mark.parametrize(
    ("preset", "dim", "depth", "hidden"), [("800m", 1024, 24, 4096), ("7b", 4096, 24, 16_384), ("17b", 9216, 6, 40_960)]
)
def test_dense_presets_are_as_large_as_their_widths_say(preset: str, dim: int, depth: int, hidden: int) -> None:
    assert size(make("scaling_transformer", preset, sparse=())) == counted_by_hand(dim, depth, hidden)


def test_the_sparse_800m_is_counted_by_hand() -> None:
    d, f, s, r = 1024, 6144, 16, 16
    m = d // s
    qkv = d * s + d * m + d + 2 * (9 * m * m + m) + 3 * m * m + m
    feed_forward = d * r + r * f + f + 2 * d * f + d
    loss = 4 * d + d * 8000 + 32_000
    rest = 24 * 3 * 2 * d + 32_000 * d + 2048 * d + 2 * d
    assert size(make("scaling_transformer", "800m")) == 24 * (2 * qkv + feed_forward) + loss + rest


@pytest.mark.parametrize(
    ("preset", "least", "most"), [("800m", 7.5e8, 8e8), ("7b", 7e9, 8.5e9), ("17b", 1.6e10, 1.8e10)]
)
def test_terraformers_are_of_the_size_that_they_are_named_after(preset: str, least: float, most: float) -> None:
    assert least < size(make("terraformer", preset)) < most


def test_a_decode_step_of_the_sparse_17b_reads_little() -> None:
    dense, sparse = (cost(make("scaling_transformer", "17b", **given), 64).total for given in ({"sparse": ()}, {}))
    assert 60 < dense.weights / sparse.weights < 90


def test_presets_can_be_changed_and_unknown_ones_are_refused() -> None:
    assert len(make("terraformer", "17b", depth=2).target.blocks[0].blocks[0].blocks) == 2
    with pytest.raises(ConfigError, match="scaling_transformer has no preset '17': did you mean '17b'"):
        make("scaling_transformer", "17")
    with pytest.raises(ConfigError, match="gpt2 has no presets"):
        make("gpt2", "17b")


@pytest.mark.parametrize("positions", POSITIONS)
def test_all_positions_train_and_decode(positions: str) -> None:
    model = small("terraformer", positions=positions).build().train()
    source, target = torch.randint(40, (2, 7)), torch.randint(40, (2, 5))
    logits = model(source, target, seed=1, remember=False).logits
    logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    whole, state, steps = model(source, target).logits, model.start(source), []
    for part in target.split(1, 1):
        out = model.step(part, state)
        state = out.state
        steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


TERRAFORMERS: dict[str, dict[str, Any]] = {
    "two streams": {},
    "averaged": {"two_streams": False},
    "forgetting": {"forget": 1, "depth": 3, "encoder_swaps": 1},
    "hashing": {"layers": ("lsh", "lsh_mult_conv"), "encoder_layers": ("lsh",), "chunk": 4, "rounds": 2, "buckets": 4}
    | {"strict": True},
    "plain": {"recurrence": None, "sparse": (), "layers": None, "attentions": 1},
}


@pytest.mark.parametrize("kind", TERRAFORMERS)
def test_a_ragged_batch_is_written_as_its_rows_alone(kind: str) -> None:
    model = awake(small("terraformer", **TERRAFORMERS[kind]))
    results = generate(model, PROMPTS, max_new=8, sampling=GREEDY, start=1)
    if kind == "hashing":
        return  # its encoder sorts by the length of the batch
    for source, result in zip(PROMPTS, results, strict=True):
        written = torch.tensor([[1, *result.tokens[:-1]]])
        with torch.no_grad():
            assert model(torch.tensor([source]), written).logits[0].argmax(-1).tolist() == result.tokens


@pytest.mark.parametrize("kind", TERRAFORMERS)
def test_a_terraformer_learns_to_copy(kind: str) -> None:
    torch.manual_seed(0)
    model = small("terraformer", **TERRAFORMERS[kind]).build().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    source, losses = torch.randint(40, (4, 6)), []
    shifted = F.pad(source[:, :-1], (1, 0), value=0)
    for step in range(40):
        logits = model(source, shifted, seed=step, remember=False).logits
        loss: Tensor = F.cross_entropy(logits.flatten(0, 1), source.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2.5 and losses[-1] < 0.6 * losses[0]


def test_a_reversible_terraformer_rebuilds_through_choices_chunks_and_dropout() -> None:
    """Parameters move the loss as the gradient says, with the seeds and generators of one and the same pass.

    Masks are soft: the gradient of hard ones is an estimate that no difference shows.
    """
    spec = small("terraformer", dropout=0.2, feed_forward_chunk=3, sparse=("feed_forward", "qkv"))
    for blocks, last in (("source.blocks[0].blocks[*]", 1), ("target.blocks[0].blocks[0].blocks[*]", 2)):
        spec = assign(spec, f"{blocks}.sublayers[{last}].layers[0].hard=0.0")
    model = awake(spec).train()
    source, target = torch.randint(40, (2, 7)), torch.randint(40, (2, 5))
    weights, parameters = torch.randn(2, 5, 40).double(), list(model.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def loss() -> Tensor:
        torch.manual_seed(3)
        return (model(source, target, seed=2, remember=False).logits.tanh() * weights).sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    step, sides = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=sign * step)
            sides.append(loss())
    torch.testing.assert_close(slope, (sides[0] - sides[1]) / (2 * step), rtol=1e-4, atol=1e-4)


REFUSED = [
    ("scaling_transformer", {"sparse": ("ff",)}, "no sparse part named 'ff'"),
    ("scaling_transformer", {"positions": "sines"}, "no positions named 'sines'"),
    ("scaling_transformer", {"modules": 5}, "do not split into 5 modules"),
    ("scaling_transformer", {"block": 7}, r"96 hidden units cannot be cut into blocks of 7(?s:.*)hidden=98"),
    ("terraformer", {"layers": ("full",)}, "no layers named 'full'"),
    ("terraformer", {"layers": ()}, "no kind of attention is named"),
    ("terraformer", {"encoder_swaps": 3}, "a block swaps once or twice"),
    ("terraformer", {"forget": 0}, "forgets after 1 block or more"),
    ("terraformer", {"recurrence": (0, 4)}, "carry nothing from token to token"),
    ("terraformer", {"dim": 36, "heads": 4}, "8 digits do not share a width of 36 evenly"),
]


@pytest.mark.parametrize(("name", "changes", "told"), REFUSED)
def test_bad_arguments_are_refused_with_a_mend(name: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        small(name, **changes).build()
