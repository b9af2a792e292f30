import importlib.util
import math

import pytest
import torch
from tiny_task import PAIRS, tiny
from torch.nn import functional as F

from formers.data.tokenizer import ByteTokenizer
from formers.errors import DataError
from formers.tasks import Translation, prepare_pairs, translate
from formers.train import AdamW, InverseSquareRoot, TrainSpec, train

SPEC = TrainSpec(steps=10, batch=8, length=16, label_smoothing=0.1)
HELD_OUT = PAIRS[::10]
TRAIN = [pair for pair in PAIRS if pair not in HELD_OUT]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_pairs(TRAIN, HELD_OUT, tmp_path_factory.mktemp("prepared"), tokenizer="bpe:320")


@pytest.fixture(scope="module")
def model(prepared):
    return tiny("transformer", prepared.tokenizer.vocab).eval()


def test_the_decoder_reads_the_start_and_learns_the_end(prepared):
    tokenizer, task = prepared.tokenizer, Translation(prepared, SPEC)
    batch = task.batch(1)
    assert (batch["inputs"][:, 0] == tokenizer.start).all()
    for source, inputs, targets, mask in zip(
        *(batch[name] for name in ("source", "inputs", "targets", "mask")), strict=True
    ):
        assert targets[mask][-1] == tokenizer.end
        assert torch.equal(inputs[mask][1:], targets[mask][:-1])
        assert (tokenizer.decode(source.tolist()), tokenizer.decode(targets[mask].tolist())) in TRAIN
    assert task.size(batch).targets == batch["mask"].sum()
    assert task.size(batch).tokens == batch["mask"].sum() + batch["source_mask"].sum()


def test_padding_is_neither_seen_nor_learned(prepared, model):
    task = Translation(prepared, SPEC)
    batch = next(batch for batch in map(task.batch, range(1, 20)) if not batch["mask"].all())
    expected = 0.0
    with torch.no_grad():
        for row in range(len(batch["source"])):
            source = batch["source"][row][batch["source_mask"][row]][None]
            inputs, targets = (batch[name][row][batch["mask"][row]] for name in ("inputs", "targets"))
            logits = model(source, inputs[None]).logits[0]
            expected += F.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1).item()
        assert task.loss(model, batch).nats.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_in_pieces_is_the_loss(prepared, model):
    whole, pieces = Translation(prepared, SPEC), Translation(prepared, SPEC.replace(loss_chunk=7))
    batch = whole.batch(1)
    torch.testing.assert_close(pieces.loss(model, batch).nats, whole.loss(model, batch).nats)
    assert pieces.evaluate(model, limit=1) == pytest.approx(whole.evaluate(model, limit=1), rel=1e-5)


def test_all_held_out_pairs_are_predicted_once_without_smoothing(prepared, model):
    nats, tokens = 0.0, 0
    for source, target in prepared.held_out:
        ids = torch.tensor([prepared.tokenizer.start, *target, prepared.tokenizer.end])[None]
        with torch.no_grad():
            logits = model(torch.tensor(source)[None], ids[:, :-1]).logits[0]
        nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        tokens += len(target) + 1
    found = Translation(prepared, SPEC).evaluate(model, limit=10**9)
    assert found == {
        "nats": pytest.approx(nats / tokens, rel=1e-5),
        "perplexity": pytest.approx(math.exp(nats / tokens), rel=1e-4),
        "tokens": tokens,
    }
    assert Translation(prepared, SPEC).evaluate(model, limit=1)["tokens"] < tokens


def test_the_tokenizer_is_kept_with_the_run_and_made_once(tmp_path, prepared):
    first = prepare_pairs(TRAIN, HELD_OUT, tmp_path, tokenizer="bpe:320")
    stamp = (tmp_path / "tokenizer.json").stat().st_mtime_ns
    again = prepare_pairs(TRAIN, HELD_OUT, tmp_path, tokenizer="bpe:320")
    assert (tmp_path / "tokenizer.json").stat().st_mtime_ns == stamp
    assert again.fingerprints == first.fingerprints == prepared.fingerprints
    other = prepare_pairs(TRAIN, HELD_OUT[1:], tmp_path, tokenizer="bpe:320")
    assert {name for name in first.fingerprints if other.fingerprints[name] != first.fingerprints[name]} == {"held_out"}


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    prepared = prepare_pairs(TRAIN, HELD_OUT, tmp_path, tokenizer=ByteTokenizer(special=()))
    with pytest.raises(DataError, match="ends with the end id"):
        Translation(prepared, SPEC)


def test_a_dictionary_is_learned_and_bleu_says_so(prepared, tmp_path, quiet):
    spec = SPEC.replace(
        steps=150, batch=16, optimizer=AdamW(learning_rate=1e-2, betas=(0.9, 0.98)), schedule=InverseSquareRoot(20)
    )
    model = tiny("transformer", prepared.tokenizer.vocab)
    outcome = train(model, Translation(prepared, spec), spec, tmp_path / "run", console=quiet)
    assert outcome.held_out["nats"] < 0.2
    if importlib.util.find_spec("sacrebleu"):
        assert outcome.held_out["bleu"] > 90
    written = translate(model.eval(), [source for source, _ in prepared.held_out], prepared.tokenizer)
    right = sum(text == truth for text, (_, truth) in zip(written, HELD_OUT, strict=True))
    assert right > 0.9 * len(HELD_OUT)
