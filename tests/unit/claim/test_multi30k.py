import gzip
import io
import json

import pytest
from rich.console import Console

from formers import claim
from formers.claim.cases.multi30k import Setting, corpus
from formers.errors import DataError
from formers.report.rows import Row

ENGLISH = ["a dog runs", "two men sit", "a girl sings", "the cat sleeps here"] * 8
GERMAN = ["ein Hund rennt", "zwei Männer sitzen", "ein Mädchen singt", "die Katze schläft hier"] * 8


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 32), ("val", 24)):
        (tmp_path / f"{part}.en").write_text("\n".join(ENGLISH[:count]) + "\n", encoding="utf-8")
        with gzip.open(tmp_path / f"{part}.de.gz", "wt", encoding="utf-8") as stream:
            stream.write("\n".join(GERMAN[:count]) + "\n")
    return tmp_path


def test_the_corpus_is_read_plain_or_compressed(folder) -> None:
    learned, held_out = corpus(folder)
    assert len(learned) == 32 and len(held_out) == 24
    assert learned[1] == ("two men sit", "zwei Männer sitzen")


def test_a_missing_file_is_named(folder) -> None:
    (folder / "val.en").unlink()
    with pytest.raises(DataError, match=r"has neither val\.en nor val\.en\.gz"):
        corpus(folder)


def test_the_claim_runs_at_its_smallest_keeps_its_files_and_can_be_run_again(folder) -> None:
    console, out = Console(file=io.StringIO(), width=140), folder / "out"
    rows = claim.run("multi30k", data=folder, folder=out, console=console, quick=True)
    curve = [row for row in rows if row.name.startswith("held-out loss")]
    assert len(curve) == 4 and all(row.value > 0 for row in curve)
    bleu = rows[-1]
    assert bleu.name == "BLEU" and str(bleu.goal) == "value >= 30"
    shown = (out / "translations.txt").read_text(encoding="utf-8")
    assert shown.count("source     ") == shown.count("ours       ") == 20
    assert "reference  zwei Männer sitzen" in console.file.getvalue()
    diary = (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["kind"] == "held_out" for line in diary) == 4

    again = claim.run("multi30k", data=folder, folder=out, console=console, quick=True)
    assert again[-1].value == bleu.value


def test_without_sacrebleu_the_figure_is_told_as_not_measured(folder, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    bleu: Row = claim.run(
        "multi30k", data=folder, folder=folder / "out", console=Console(file=io.StringIO()), quick=True
    )[-1]
    assert bleu.value is None and bleu.met is None
    assert bleu.note == "not measured: pip install sacrebleu"


def test_the_training_follows_the_paper_where_it_says_so() -> None:
    spec = Setting().training()
    spec.check()
    assert spec.label_smoothing == 0.1
    assert spec.optimizer.betas == (0.9, 0.98)
    assert spec.batch * spec.length == 2048
