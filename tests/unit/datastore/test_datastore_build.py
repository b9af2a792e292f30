"""What a store holds, and that nothing of an interrupted build is seen or lost."""

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from stored import LENGTH, OVERLAP, TOKENIZER, reading_of, small_model, store_of, text_of
from torch import nn

from formers import MLP, Attention, Block, Decoder, PostNorm, Reversible, make, stack
from formers.data.tokenizer import CharTokenizer
from formers.datastore import Datastore, Tap, add
from formers.datastore.keys import FEED_FORWARD, LAST_HIDDEN
from formers.errors import ConfigError, DataError

TEXT = text_of(101)


def by_hand(model: nn.Module, tokens: np.ndarray) -> torch.Tensor:
    """Keys of every context, each window by itself, worked out from the parts of GPT-2."""
    stream = torch.from_numpy(np.concatenate([[TOKENIZER.end], tokens[:-1]]).astype(np.int64))
    keys, step = [], LENGTH - OVERLAP
    for place in range(len(tokens)):
        window = 0 if place < LENGTH else (place - OVERLAP) // step
        seen = stream[None, window * step : place + 1]
        inputs: list[torch.Tensor] = []
        last = model.stack.blocks[-1]
        handle = last.sublayers[1].up.register_forward_pre_hook(lambda _, given, to=inputs: to.append(given[0]))
        model(seen)
        handle.remove()
        keys.append(inputs[0][0, -1].detach())
    return torch.stack(keys)


def test_keys_are_what_the_last_feed_forward_reads_and_values_what_follows(tmp_path: Path) -> None:
    model = small_model()
    store = store_of(tmp_path / "s", model, TEXT)
    assert store.count == len(TEXT) and store.dim == 16
    np.testing.assert_array_equal(store.values, TEXT)
    torch.testing.assert_close(store.keys(0, len(TEXT)), by_hand(model, TEXT), rtol=1e-5, atol=1e-5)
    some = torch.tensor([100, 3, 3, 57])
    torch.testing.assert_close(store.keys_at(some), store.keys(0, len(TEXT))[some], rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 4, 50])
@pytest.mark.parametrize("length", [1, 5, 12, 13, 40])
def test_every_token_is_predicted_once_however_windows_are_cut(rows: int, length: int) -> None:
    model, tokens = small_model(), text_of(length)
    pieces = list(reading_of(model, tokens, rows).pieces(scored=True))
    np.testing.assert_array_equal(torch.cat([piece.tokens for piece in pieces]).numpy(), tokens)
    assert [piece.first for piece in pieces] == np.cumsum([0, *[len(p.tokens) for p in pieces[:-1]]]).tolist()
    whole = torch.cat([piece.keys for piece in pieces])
    torch.testing.assert_close(whole, by_hand(model, tokens), rtol=1e-5, atol=1e-5)
    assert sum(float(piece.nats.sum()) for piece in pieces) > 0


def test_nats_are_those_of_the_model() -> None:
    model, tokens = small_model(), text_of(10)
    (piece,) = reading_of(model, tokens).pieces(scored=True)
    stream = torch.from_numpy(np.concatenate([[TOKENIZER.end], tokens]).astype(np.int64))
    wanted = torch.nn.functional.cross_entropy(model(stream[None, :-1]).logits[0], stream[1:], reduction="none")
    torch.testing.assert_close(piece.nats, wanted)


@pytest.mark.parametrize("kept", ["fp16", "bf16"])
def test_keys_may_be_kept_in_half_the_room(tmp_path: Path, kept: str) -> None:
    model = small_model()
    whole, half = store_of(tmp_path / "a", model, TEXT), store_of(tmp_path / "b", model, TEXT, precision=kept)
    assert (tmp_path / "b" / "keys.bin").stat().st_size * 2 == (tmp_path / "a" / "keys.bin").stat().st_size
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[kept]
    torch.testing.assert_close(half.keys(5, 90), whole.keys(5, 90).to(dtype).float(), rtol=0, atol=0)
    torch.testing.assert_close(half.keys_at(torch.tensor([9, 7])), half.keys(0, 10)[[9, 7]], rtol=0, atol=0)


class StopError(Exception):
    pass


def stop_at(share: float):
    def tick(done: float) -> None:
        if done > share:
            raise StopError

    return tick


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_an_interrupted_build_goes_on_and_is_the_same(tmp_path: Path, share: float) -> None:
    model = small_model()
    store_of(tmp_path / "whole", model, TEXT)
    with pytest.raises(StopError):
        store_of(tmp_path / "cut", model, TEXT, tick=stop_at(share))
    with pytest.raises(DataError, match=r"interrupted after \d+ of 101 entries: run it again"):
        Datastore(tmp_path / "cut")
    with (tmp_path / "cut" / "keys.bin").open("ab") as stream:  # a piece that was half-written
        stream.write(b"half")
    done: list[float] = []
    store_of(tmp_path / "cut", model, TEXT, tick=done.append)
    assert min(done) > share
    assert not (tmp_path / "cut" / "unfinished.json").exists()
    for name in ("keys.bin", "values.bin", "store.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_text_is_added_without_a_trace_of_a_stop(tmp_path: Path) -> None:
    model, more = small_model(), text_of(60, seed=2)
    old = store_of(tmp_path / "s", model, TEXT)
    before = old.keys(0, 101).clone()
    with pytest.raises(StopError):
        add(tmp_path / "s", reading_of(model, more), TOKENIZER, tick=stop_at(0.3))
    assert Datastore(tmp_path / "s").count == 101  # what was there can be read all the while
    store = add(tmp_path / "s", reading_of(model, more), TOKENIZER)
    assert store.count == 161
    np.testing.assert_array_equal(store.values, np.concatenate([TEXT, more]))
    torch.testing.assert_close(store.keys(0, 101), before, rtol=0, atol=0)
    torch.testing.assert_close(store.keys(101, 161), by_hand(model, more), rtol=1e-5, atol=1e-5)
    assert store_of(tmp_path / "s", model, TEXT).count == 161  # what it was begun with finds it again
    with pytest.raises(DataError, match=r"in .* already"):
        add(tmp_path / "s", reading_of(model, more), TOKENIZER)


def test_a_finished_build_is_opened_and_another_refused(tmp_path: Path) -> None:
    model = small_model()
    store_of(tmp_path / "s", model, TEXT)
    assert store_of(tmp_path / "s", model, TEXT).count == 101
    with pytest.raises(DataError, match="another datastore"):
        store_of(tmp_path / "s", model, text_of(50, seed=3))
    with pytest.raises(StopError):
        store_of(tmp_path / "t", model, TEXT, tick=stop_at(0.1))
    with pytest.raises(DataError, match=r"interrupted build of another text.*\(text, count differ\)"):
        store_of(tmp_path / "t", model, text_of(50, seed=3))


def test_a_store_of_something_else_is_refused(tmp_path: Path) -> None:
    model = small_model()
    store = store_of(tmp_path / "s", model, TEXT)
    store.require(model, TOKENIZER)
    with pytest.raises(DataError, match="other weights"):
        store.require(small_model(seed=5), TOKENIZER)
    with pytest.raises(DataError, match="keys of 16 numbers, and gpt2 makes keys of 32"):
        store.require(small_model(dim=32), TOKENIZER)
    with pytest.raises(DataError, match="another tokenizer"):
        store.require(model, CharTokenizer("abc"))
    with pytest.raises(DataError, match="another tokenizer"):
        add(tmp_path / "s", reading_of(model, TEXT), CharTokenizer("abc"))


def test_what_is_missing_empty_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no datastore; build one"):
        Datastore(tmp_path / "none")
    model = small_model()
    with pytest.raises(DataError, match="leave nothing to predict"):
        reading_of(model, TEXT[:0])
    store_of(tmp_path / "s", model, TEXT)
    keys = tmp_path / "s" / "keys.bin"
    keys.write_bytes(keys.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged: it has 6,463 bytes where 6,464"):
        Datastore(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text("{}")
    with pytest.raises(DataError, match="no header of a datastore"):
        Datastore(tmp_path / "s")


def test_a_disk_that_is_too_small_is_told_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 10, 101 * 68 - 1))
    with pytest.raises(DataError, match="GiB are free: keep keys in half the room"):
        store_of(tmp_path / "s", small_model(), TEXT)
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 10, 101 * 68))
    assert store_of(tmp_path / "s", small_model(), TEXT).count == 101


def test_numbers_that_do_not_fit_are_not_kept(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.stack.blocks[-1].residual.norms[1].weight.mul_(1e6)
    with pytest.raises(DataError, match="too large for fp16"):
        store_of(tmp_path / "s", model, TEXT, precision="fp16")
    with pytest.raises(DataError, match="fp32, fp16, bf16, not 'fp8'"):
        store_of(tmp_path / "t", model, TEXT, precision="fp8")


@pytest.mark.parametrize("residual", ["pre", "post", "reversible", "reversible in chunks"])
def test_the_key_is_the_input_of_the_last_feed_forward_under_every_residual_rule(residual: str) -> None:
    block = Block((Attention(2), MLP(24, chunk=5 if "chunks" in residual else None)))
    blocks = stack(block.replace(residual=PostNorm()) if residual == "post" else block, times=2)
    torch.manual_seed(0)
    model = Decoder("m", 257, 16, (Reversible(blocks, "mean"),) if "reversible" in residual else blocks).build().eval()
    inputs, seen = torch.randint(257, (2, 13)), []
    last = [module for name, module in model.named_modules() if name.endswith("up")][-1]
    handle = last.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with Tap(model).open() as tap:
        keys = tap.take(model(inputs))
    handle.remove()
    assert tap.place == FEED_FORWARD
    torch.testing.assert_close(keys, torch.cat(seen, 1), rtol=0, atol=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_without_a_feed_forward_gives_its_last_hidden_state() -> None:
    model = Decoder("bare", 257, 16, stack(Block((Attention(2),)), times=2)).build().eval()
    out = model(torch.randint(257, (2, 7)))
    with Tap(model).open() as tap:
        torch.testing.assert_close(tap.take(out), out.hidden)
    assert tap.place == LAST_HIDDEN


def test_an_encoder_has_no_keys() -> None:
    with pytest.raises(ConfigError, match="bert is no causal language model"):
        Tap(make("bert", vocab=40, dim=16, depth=1, heads=2, hidden=24, length=32).build())


def test_a_killed_build_loses_what_was_not_noted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: the last note is older than the files."""
    monkeypatch.setattr("formers.datastore.writing.UNSETTLED", 40 * 64)
    model = small_model()
    store_of(tmp_path / "whole", model, TEXT)
    notes: list[str] = []
    note = tmp_path / "cut" / "unfinished.json"
    with pytest.raises(StopError):
        store_of(tmp_path / "cut", model, TEXT, tick=lambda done: (notes.append(note.read_text()), stop_at(0.8)(done)))
    assert len(set(notes)) < len(notes)
    assert json.loads(notes[-2])["done"] < json.loads(note.read_text())["done"]
    note.write_text(notes[-2])
    store_of(tmp_path / "cut", model, TEXT)
    assert (tmp_path / "cut" / "keys.bin").read_bytes() == (tmp_path / "whole" / "keys.bin").read_bytes()
