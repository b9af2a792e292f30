"""Without the compiled engine PyTorch decodes, and the reason is said."""

import pytest
import torch
from small import LEARNED, awake

from formers import FormersError
from formers.decode import GREEDY, generate
from formers.decode.engine import choose_engine
from formers.native.engine import bandwidth, library


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_open", lambda: "the native engine was not built: install a compiler")


@pytest.mark.usefixtures("not_built")
def test_without_it_pytorch_decodes() -> None:
    model = awake(LEARNED)
    choice = choose_engine(model)
    assert choice.program is None and "not built" in str(choice.why)
    assert generate(model, [[1, 2]], max_new=5, sampling=GREEDY) == generate(
        model, [[1, 2]], max_new=5, sampling=GREEDY, engine="torch"
    )


@pytest.mark.usefixtures("not_built")
def test_asking_for_it_says_why_not() -> None:
    with pytest.raises(FormersError, match=r"not built: .*; the engine 'native' cannot be had"):
        generate(awake(LEARNED), [[1]], max_new=1, engine="native")
    with pytest.raises(FormersError, match="weights in int8 cannot be had"):
        generate(awake(LEARNED), [[1]], max_new=1, dtype="int8")
    with pytest.raises(FormersError, match="not built"):
        library.engine()


def test_the_fastest_kernel_runs_here() -> None:
    assert library.engine().runs_here(library.fastest())
    assert not library.engine().runs_here("")


def test_double_precision_stays_with_pytorch() -> None:
    choice = choose_engine(awake(LEARNED).to(torch.float64))
    assert choice.program is None and "float64" in str(choice.why)


def test_memory_is_read_at_some_speed() -> None:
    assert 1e7 < bandwidth(1 << 22, 2) < 1e13
    for size, threads in ((0, 1), (2**50, 1), (1 << 20, 0)):
        with pytest.raises(FormersError, match=r"can be read|threads"):
            bandwidth(size, threads)
