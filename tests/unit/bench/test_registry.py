import pytest

from formers.bench import BENCHES
from formers.bench.registry import Registry, Rival
from formers.claim import CLAIMS
from formers.errors import FormersError


def toy() -> Registry:
    registry = Registry("bench")

    @registry.case("train", "small", unit="tokens/s")
    def small(trial):
        yield trial.row("small", 1.0)

    @registry.case("decode", "greedy", unit="tokens/s")
    def greedy(trial):
        yield trial.row("greedy", 1.0)

    @registry.case("train", "large", unit="tokens/s")
    def large(trial):
        yield trial.row("large", 1.0)

    return registry


def test_suites_gather_their_cases_in_order() -> None:
    registry = toy()
    assert {name: [case.title for case in cases] for name, cases in registry.suites().items()} == {
        "train": ["small", "large"],
        "decode": ["greedy"],
    }
    assert [case.title for case in registry] == ["small", "greedy", "large"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(FormersError, match=r"no bench is called 'trian'; did you mean train\?"):
        toy().find("trian")


def test_a_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(FormersError, match="there are train, decode"):
        toy().find("zzz")


def test_two_cases_of_one_suite_cannot_share_a_title() -> None:
    registry = toy()
    with pytest.raises(FormersError, match="has a case 'small' already"):
        registry.case("train", "small", unit="ms")(lambda trial: [])


def test_a_rival_is_installed_when_its_package_is() -> None:
    assert Rival("plain PyTorch").installed
    assert Rival("PyTorch", package="torch").installed
    absent = Rival("another", package="no-such-package-anywhere")
    assert not absent.installed
    assert absent.remedy == "not measured: pip install no-such-package-anywhere"


def test_the_issue_s_cases_are_registered() -> None:
    assert {"train", "decode"} <= set(BENCHES.suites())
    assert {"nanogpt", "multi30k"} <= set(CLAIMS.suites())
    assert all(case.needs for suite in ("nanogpt", "multi30k") for case in CLAIMS.find(suite))


def test_a_rival_that_needs_old_versions_of_others_names_the_extra_that_has_them() -> None:
    absent = Rival("another", package="no-such-package-anywhere", extra="rivals-content")
    assert absent.remedy == "not measured: pip install 'formers[rivals-content]'"


def test_the_suites_of_long_sequences_are_registered() -> None:
    assert {"content", "reversible", "million"} <= set(BENCHES.suites())
