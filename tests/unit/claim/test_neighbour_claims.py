"""The claims on neighbours, at their smallest, without torch's headers."""

import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.claim import cases  # noqa: F401
from formers.claim.cases.spalm import balanced
from formers.claim.neighbour_task import ALPHABET, TINY, TOKENIZER, Domain, keys_of, nats_of, targets_of
from formers.data.chance import below
from formers.datastore import Tap
from formers.family import make


def domain_of(letters: str) -> Domain:
    text = "".join(letters[i * i % len(letters)] for i in range(900))
    ids = np.array(TOKENIZER.encode(text), dtype=np.uint16)
    return Domain(ids[:700], ids[700:])


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in ("knn_lm", "spalm"):
        monkeypatch.setattr(f"formers.claim.cases.{case}.python_sources", lambda _: domain_of("def f(x):\n    return"))
    monkeypatch.setattr("formers.claim.cases.knn_lm.cpp_headers", lambda _: domain_of("#include <vector>;"))


def run(name: str) -> dict[str, object]:
    (case,) = CLAIMS.find(name)
    trial = Trial(case, Console(file=io.StringIO()), quick=True)
    return {row.name: row for row in case.measure(trial)}


def test_knn_lm_compares_two_domains_and_two_stores() -> None:
    rows = run("knn_lm")
    assert list(rows)[:3] == ["in domain", "out of domain", "out of domain, a tenth of the store"]
    assert all(math.isfinite(row.value) for row in rows.values())
    assert rows["saved out of domain"].value == pytest.approx(
        rows["out of domain"].rival_value - rows["out of domain"].value
    )
    assert [row.goal is not None for row in rows.values()] == [False] * 3 + [True] * 5


def test_spalm_compares_a_gate_with_no_memory_and_with_a_mixture() -> None:
    rows = run("spalm")
    assert len(rows) == 5
    assert rows["saved by it"].value == pytest.approx(
        rows["with a gated memory"].rival_value - rows["with a gated memory"].value
    )
    assert 0 < rows["with a gated memory"].value < 7


def test_the_second_half_of_each_window_is_counted() -> None:
    model = make("spalm", **TINY.model).build().eval()
    with torch.no_grad():
        model.stack.blocks[-1].gate.weight.fill_(0.3)
    windows = domain_of("abc(x)").windows(TINY).repeat(5, 1)  # more than are read side by side
    assert windows.shape == (20, 17)
    found = torch.from_numpy(below(96, 0, np.arange(20 * 8 * 3))).view(160, 3)
    nats, gate = nats_of(model, windows, found)
    whole = torch.full((20, 16, 3), -1)
    whole[:, 8:] = found.view(20, 8, 3)
    with torch.inference_mode(), Tap(model).open() as tap:
        out = model(windows[:, :-1], retrieved=whole)
        keys = tap.take(out)[:, 8:].flatten(0, 1)
        wanted = torch.nn.functional.cross_entropy(
            out.logits[:, 8:].flatten(0, 1), windows[:, 9:].flatten(), reduction="none"
        )
    torch.testing.assert_close(nats, wanted)
    torch.testing.assert_close(gate, out.records["gate"][0][:, 8:].flatten())
    torch.testing.assert_close(keys_of(model, windows), keys)
    assert torch.equal(targets_of(windows), windows[:, 9:].flatten())
    assert len(ALPHABET) == 96


def test_a_balanced_model_computes_the_same_with_longer_token_vectors() -> None:
    torch.manual_seed(0)
    model = make("transformer_xl", **TINY.model).build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    other, windows = balanced(model), domain_of("abc(x)").windows(TINY)
    was, now = model(windows), other(windows)
    torch.testing.assert_close(now.logits, was.logits, rtol=1e-4, atol=1e-4)  # the norm's eps sees another scale
    lengths = other.embedding.tokens.weight.norm(dim=1).mean(), now.hidden.norm(dim=-1).mean()
    assert lengths[0].item() == pytest.approx(lengths[1].item(), rel=0.2)
    assert not torch.equal(other.embedding.tokens.weight, model.embedding.tokens.weight)
