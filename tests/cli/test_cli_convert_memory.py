"""`formers convert --to memorizing`: a run becomes one with a memory, reads short texts as before, and is trained on."""

from pathlib import Path

import pytest
import torch
from command import QUICK, Cli

from formers import make
from formers.attention.memorizing.layer import MemorizingAttentionLayer
from formers.data.tokenizer import ByteTokenizer
from formers.train import Run, load_model

SMALL = ["--segment", 8, "--memory", 24, "--top-k", 4]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that hold a small LLaMA, one with shared key heads, a GPT-2 and a BERT, as an import leaves them."""
    tokenizer, folder = ByteTokenizer(("end", "pad", "mask")), tmp_path_factory.mktemp("runs")
    sizes = {"vocab": tokenizer.vocab, "dim": 16, "depth": 3, "heads": 2, "hidden": 16}
    made = {"llama": sizes, "shared": sizes | {"kv_heads": 1}, "gpt2": sizes | {"length": 64}, "bert": sizes}
    for name, given in made.items():
        model = make("llama" if name == "shared" else name, **given).build()
        Run(folder / name).hold(model, model.spec, tokenizer)
    return folder


def test_a_run_gets_a_memory_and_is_trained(cli: Cli, runs: Path, text: Path, tmp_path: Path) -> None:
    said = cli("convert", runs / "llama", "--to", "memorizing", "--layer", 2, *SMALL, "--out", tmp_path / "long")
    assert said.code == 0, said.err
    assert said.out.startswith(f"{tmp_path / 'long'}: memorizing_llama, 4 parameters more than llama")
    words = ["--data", text, "--out", tmp_path / "run", "--steps", 2, *QUICK]
    said = cli("train", "--from", tmp_path / "long", *words)
    assert said.code == 0, said.err
    trained = load_model(tmp_path / "run")
    assert trained.spec == load_model(tmp_path / "long").spec
    kinds = [type(block.sublayers[0]) for block in trained.stack.blocks]
    assert [kind is MemorizingAttentionLayer for kind in kinds] == [False, True, False]
    assert cli("eval", tmp_path / "run").code == 0


def test_short_texts_are_read_as_before_and_long_ones_where_the_gate_is_closed(
    cli: Cli, runs: Path, tmp_path: Path
) -> None:
    words = ["convert", runs / "llama", "--to", "memorizing", "--layer", 1, 3, *SMALL]
    assert cli(*words, "--out", tmp_path / "open").code == 0
    assert cli(*words, "--gate", "-100", "--out", tmp_path / "closed").code == 0
    old, new, closed = (load_model(path) for path in (runs / "llama", tmp_path / "open", tmp_path / "closed"))
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(new(tokens).logits[:, :8], old(tokens).logits[:, :8])
        assert not torch.equal(new(tokens).logits[:, 8:], old(tokens).logits[:, 8:])
        torch.testing.assert_close(closed(tokens).logits, old(tokens).logits)  # two segments: local attention sees both


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("llama", ["--layer", 4], "llama has attention layers 1 to 3, and no layer 4: give --layer 2"),
        ("llama", [], "llama has attention layers 1 to 3, and none was named: give --layer 2"),
        ("llama", ["--layer", 2, "--memory", 3], "a memory of 3 tokens does not hold top_k=32 keys"),
        ("llama", ["--layer", 2, "--steps", 5], "--steps is not for --to memorizing, which trains nothing"),
        ("shared", ["--layer", 2], "cannot be given a memory"),
        ("gpt2", ["--layer", 2], "gpt2 has positions for 64 tokens"),
        ("bert", ["--layer", 2], "only a Decoder has a past to remember"),
    ],
)
def test_what_cannot_have_one_is_refused(
    name: str, words: list[object], told: str, cli: Cli, runs: Path, tmp_path: Path
) -> None:
    said = cli("convert", runs / name, "--to", "memorizing", *words, "--out", tmp_path / "out")
    assert said.code != 0
    assert told in said.err
    assert not (tmp_path / "out").exists()


def test_a_memory_is_not_for_other_kinds(cli: Cli, runs: Path, tmp_path: Path) -> None:
    said = cli("convert", runs / "bert", "--to", "longformer", "--length", 96, "--layer", 2, "--out", tmp_path / "out")
    assert said.code != 0
    assert "--layer is for --to memorizing, not for --to longformer" in said.err


def test_a_second_memory_is_not_built_over_the_first(cli: Cli, runs: Path, tmp_path: Path) -> None:
    words = ["--to", "memorizing", "--layer", 2, *SMALL, "--out"]
    assert cli("convert", runs / "llama", *words, tmp_path / "one").code == 0
    said = cli("convert", tmp_path / "one", *words, tmp_path / "two")
    assert "has a memory already" in said.err
