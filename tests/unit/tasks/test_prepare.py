import json

import numpy as np
import pytest

from formers.data.tokenizer import BPETokenizer, ByteTokenizer
from formers.errors import DataError
from formers.tasks import open_prepared, prepare

DOCUMENTS = [f"document {number} of many: {number * 7919} sheep\n" for number in range(40)]


def words(prepared, file):
    return prepared.tokenizer.decode(file.tokens.tolist())


def test_every_document_is_on_one_side(tmp_path):
    prepared = prepare(DOCUMENTS, tmp_path, held_out=0.2)
    train, held_out = words(prepared, prepared.train), words(prepared, prepared.held_out)
    assert all((document in train) != (document in held_out) for document in DOCUMENTS)
    assert prepared.train.documents + prepared.held_out.documents == 40
    assert prepared.held_out.text_bytes == len(held_out.encode())


def test_the_end_of_a_single_document_is_held_out(tmp_path):
    (tmp_path / "text.txt").write_text("abcdefghij" * 10)
    prepared = prepare(tmp_path / "text.txt", tmp_path / "data", held_out=0.1)
    assert words(prepared, prepared.train) == "abcdefghij" * 9
    assert words(prepared, prepared.held_out) == "abcdefghij"


@pytest.mark.parametrize("choice", ["bytes", "characters", "bpe:270"])
def test_what_was_prepared_is_opened_again_and_not_made_anew(tmp_path, choice):
    first = prepare(DOCUMENTS, tmp_path, tokenizer=choice)
    stamp = first.train.path.stat().st_mtime_ns
    again = prepare(DOCUMENTS, tmp_path, tokenizer=choice)
    assert again.train.path.stat().st_mtime_ns == stamp
    for other in (again, open_prepared(tmp_path)):
        assert other.fingerprints == first.fingerprints
        assert other.tokenizer.fingerprint == first.tokenizer.fingerprint


def test_whatever_changes_makes_it_anew(tmp_path):
    seen = [
        prepare(texts, tmp_path, tokenizer=choice, held_out=held_out).fingerprints
        for texts, choice, held_out in (
            (DOCUMENTS, "bytes", 0.2),
            (DOCUMENTS[1:], "bytes", 0.2),
            (DOCUMENTS, "characters", 0.2),
            (DOCUMENTS, "bytes", 0.4),
            (DOCUMENTS, ByteTokenizer(("end", "pad")), 0.2),
        )
    ]
    assert len({json.dumps(prints) for prints in seen}) == 5


def test_a_trained_tokenizer_does_not_see_what_is_held_out(tmp_path):
    secret = "xyzzyxyzzy " * 200
    prepared = prepare(["common words " * 200 + secret], tmp_path, tokenizer="bpe:300", held_out=0.5)
    assert secret.strip() in words(prepared, prepared.held_out)
    assert len(prepared.tokenizer.encode("common")) < 6 < len(prepared.tokenizer.encode("xyzzyxyzzy"))


def test_a_character_that_only_the_held_out_part_has_can_be_written(tmp_path):
    prepared = prepare(["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaz"], tmp_path, tokenizer="characters", held_out=0.1)
    assert words(prepared, prepared.held_out).endswith("z")


def test_a_tokenizer_can_be_named_by_its_path(tmp_path):
    BPETokenizer.train(DOCUMENTS, 280).save(tmp_path / "tokenizer")
    for path in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        assert prepare(DOCUMENTS, tmp_path / "data", tokenizer=str(path)).tokenizer.vocab == 280


@pytest.mark.parametrize("choice", ["byte", "bpe:", "bpe:many", "bpe:-5", "/no/such/path"])
def test_a_tokenizer_that_there_is_not_is_refused(tmp_path, choice):
    with pytest.raises(DataError, match="bpe:8000"):
        prepare(DOCUMENTS, tmp_path, tokenizer=choice)
    assert list(tmp_path.iterdir()) == []


def test_a_half_prepared_folder_is_not_opened_but_can_be_made_whole(tmp_path):
    prepare(DOCUMENTS, tmp_path)
    (tmp_path / "prepared.json").unlink()
    with pytest.raises(DataError, match="holds no prepared text"):
        open_prepared(tmp_path)
    assert len(prepare(DOCUMENTS, tmp_path).train) > 0


def test_a_damaged_token_file_is_refused(tmp_path):
    prepared = prepare(DOCUMENTS, tmp_path)
    np.array([1, 2, 3], dtype=np.uint16).tofile(prepared.train.path)
    with pytest.raises(DataError, match="is damaged"):
        open_prepared(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot write"):
        prepare(DOCUMENTS, tmp_path / "file" / "data")


def test_one_short_document_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match="too short"):
        prepare(["a"], tmp_path)
