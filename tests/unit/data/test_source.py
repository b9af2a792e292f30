"""Documents from files and folders, and the standard library."""

import gzip
import json

import pytest

from formers.data.source import documents, standard_library
from formers.errors import DataError


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_text_file_is_one_document_unchanged(tmp_path):
    write(tmp_path, {"a.txt": "one\r\ntwo\n\nthrée €\n"})
    assert list(documents(tmp_path / "a.txt")) == ["one\r\ntwo\n\nthrée €\n"]
    assert list(documents(str(tmp_path / "a.txt"))) == ["one\r\ntwo\n\nthrée €\n"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    write(tmp_path, {"a.txt": b"\xef\xbb\xbfhello", "b.jsonl": b'\xef\xbb\xbf{"text": "hi"}\n'})
    assert list(documents(tmp_path)) == ["hello", "hi"]


def test_a_folder_is_walked_through_in_sorted_order(tmp_path):
    write(
        tmp_path,
        {
            "b.txt": "two",
            "a.md": "one",
            "c/z.txt.gz": "four",
            "c/a.jsonl.gz": '{"text": "three"}\n',
            "c/empty.txt": "",
            ".hidden": "no",
            ".git/config": "no",
        },
    )
    found = documents(tmp_path)
    assert list(found) == ["one", "two", "three", "four"]
    assert list(found) == ["one", "two", "three", "four"], "and read anew every time"
    assert found.skipped == ()


def test_several_paths_come_one_after_the_other(tmp_path):
    write(tmp_path, {"b.txt": "b", "a/a.txt": "a"})
    assert list(documents([tmp_path / "b.txt", tmp_path / "a"])) == ["b", "a"]


def test_binary_files_of_a_folder_are_left_out_and_named(tmp_path):
    write(tmp_path, {"a.txt": "text", "b.bin": b"a\0b", "c.txt": b"caf\xe9"})
    found = documents(tmp_path)
    assert list(found) == ["text"]
    assert [path.name for path in found.skipped] == ["b.bin", "c.txt"]


def test_a_folder_without_text_says_what_it_left_out(tmp_path):
    write(tmp_path, {"b.bin": b"a\0b", "c.txt": b"caf\xe9", "d.txt": "  \n"})
    with pytest.raises(DataError, match=r"holds no text \(2 files that are not UTF-8 text were left out\)"):
        list(documents(tmp_path))


def test_json_lines_give_the_named_field(tmp_path):
    lines = [{"text": "one", "title": "I"}, {"text": "two\nlines", "title": "II"}, {"text": "", "title": "III"}]
    write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, lines)) + "\n\n"})
    assert list(documents(tmp_path / "a.jsonl")) == ["one", "two\nlines"]
    assert list(documents(tmp_path / "a.jsonl", field="title")) == ["I", "II", "III"]


def test_a_lone_surrogate_in_json_becomes_a_replacement(tmp_path):
    write(tmp_path, {"a.jsonl": r'{"text": "a\ud800b \ud83d\ude42"}'})
    assert list(documents(tmp_path / "a.jsonl")) == ["a\ufffdb 🙂"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"text": "one"}\n{"text": ', r"a\.jsonl, line 2 is not JSON"),
        (b'{"text": "one"}\n["two"]\n', r"a\.jsonl, line 2 is a JSON list"),
        (
            b'{"body": "one", "n": 1}\n',
            r"line 1 has no text in its field 'text'; the fields that hold text are: 'body'",
        ),
        (b'{"text": 5}\n', r"no text in its field 'text'.*are: none"),
        (b'{"text": "one"}\n{"text": "\xff"}\n', r"a\.jsonl, line 2 is not UTF-8"),
    ],
)
def test_wrong_json_lines_are_named_by_line_in_folders_too(content, message, tmp_path):
    write(tmp_path, {"a.jsonl": content})
    for path in (tmp_path / "a.jsonl", tmp_path):
        with pytest.raises(DataError, match=message):
            list(documents(path))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", b"ab\0c", "a.txt is not text: it has a NUL byte at offset 2"),
        ("a.txt", "héllo".encode("latin-1"), "a.txt is not UTF-8: byte 0xe9 at offset 1; convert it"),
        ("a.txt", b"", "a.txt holds no text"),
        ("a.txt", b" \n\n", "a.txt holds no text"),
    ],
)
def test_a_file_that_is_no_text_is_one_clear_error(name, content, message, tmp_path):
    write(tmp_path, {name: content})
    with pytest.raises(DataError, match=message):
        list(documents(tmp_path / name))


def test_a_damaged_gzip_is_one_clear_error(tmp_path):
    whole = gzip.compress(bytes(range(33, 120)) * 50)
    flipped = bytearray(whole)
    flipped[30] ^= 0xFF
    for name in ("a.txt.gz", "a.jsonl.gz"):
        for content in (whole[:-20], b"no gzip at all", bytes(flipped)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match="is damaged: it does not unpack"):
                list(documents(tmp_path / name))


def test_a_missing_path_is_refused_at_once(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        documents(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data is named"):
        documents([])


def test_a_file_that_goes_away_is_one_clear_error(tmp_path):
    write(tmp_path, {"a.txt": "a"})
    found = documents(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*a\.txt: No such file"):
        list(found)


def test_the_standard_library_is_real_source_in_sorted_order():
    library = standard_library()
    names = [path.as_posix() for path in library.found]
    assert any(name.endswith("/argparse.py") for name in names)
    assert not any("site-packages" in name or "/test/" in name or "__pycache__" in name for name in names)
    first = next(iter(library))
    assert first == library.found[0].read_bytes().decode()
    assert [path.as_posix() for path in standard_library().found] == names
    assert sum(path.stat().st_size for path in library.found) > 4_000_000


def test_a_python_without_sources_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="without the sources of its library"):
        standard_library()
