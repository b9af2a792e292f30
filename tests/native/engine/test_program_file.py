"""Programs as files: what is written is what is opened, and what is not a program is refused in words."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small import LEARNED, ROLLING, awake

from formers import CheckpointError, FormersError
from formers.native.engine.file import open_program, save_program
from formers.native.engine.lower import lower, outline
from formers.native.engine.run import Engine

TOKENS = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_program(lower(awake(ROLLING), "int8"), path)
    return path


def rewritten(path: Path, change: Any) -> Path:
    """The same weights under another header."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    kept = json.loads(header["__metadata__"]["formers.program"])
    change(header, kept)
    header["__metadata__"]["formers.program"] = json.dumps(kept)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("spec", [ROLLING, LEARNED])
def test_an_opened_program_gives_what_the_saved_one_gave(spec: Any, dtype: str, tmp_path: Path) -> None:
    model, path = awake(spec), tmp_path / "deep" / "program.safetensors"
    save_program(outline(model, dtype), path)
    opened = open_program(path, spec=model.spec.to_json(), dtype=dtype)
    expected = Engine(lower(model, dtype)).session().step(TOKENS, [0] * 8)
    np.testing.assert_array_equal(Engine(opened).session().step(TOKENS, [0] * 8), expected)
    assert not any(matrix.data.flags.owndata or matrix.data.flags.writeable for matrix in opened.matrices)


def test_a_program_is_a_safetensors_file(saved: Path) -> None:
    tensors, program = load_file(saved), open_program(saved)
    np.testing.assert_array_equal(tensors["matrix.0"], program.matrices[0].data)
    assert len(tensors) == len(program.matrices) + len(program.vectors)
    offset = program.matrices[0].data.ctypes.data % 64
    assert offset == 0


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"truncated|beginning is lost|no program"):
        open_program(saved)


@pytest.mark.parametrize("content", [b"\0" * 400, b"\xff" * 400, b"{" * 400, struct.pack("<Q", 2) + b"[]" + b"x" * 50])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other (is no|holds)"):
        open_program(path)


def test_a_checkpoint_is_not_taken_for_a_program(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no program that formers has written"):
        open_program(tmp_path / "weights.safetensors")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing cannot be read: No such file"):
        open_program(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_program(tmp_path)


def test_another_model_or_type_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="holds another model"):
        open_program(saved, spec=LEARNED.to_json())
    with pytest.raises(CheckpointError, match="holds weights in int8, not in bf16"):
        open_program(saved, dtype="bf16")


@pytest.mark.parametrize(
    "change",
    [
        lambda header, kept: kept.update(version=99),
        lambda header, kept: kept.pop("ops"),
        lambda header, kept: kept.update(ops=3),
        lambda header, kept: kept.update(ops=[["embed"]]),
        lambda header, kept: kept.update(widths=["a"]),
        lambda header, kept: kept.update(caches=[[1]]),
        lambda header, kept: kept.update(matrices=[[10**9, "int8", 64]]),
        lambda header, kept: kept.update(matrices=[[32, "int9", 64]]),
        lambda header, kept: kept.update(matrices=[[32, "int8", 0]]),
        lambda header, kept: kept["ops"][0].__setitem__(0, "burn"),
        lambda header, kept: kept["ops"][0].__setitem__(2, [10**30]),
        lambda header, kept: kept.update(vocab=10**30),
        lambda header, kept: header.pop("matrix.0"),
        lambda header, kept: header["matrix.0"].update(data_offsets=[64, 0]),
        lambda header, kept: header["matrix.0"].update(data_offsets=[-64, 0]),
        lambda header, kept: header["matrix.0"].update(data_offsets=[0, 10**15]),
        lambda header, kept: header["matrix.0"].update(shape=[0, 64]),
        lambda header, kept: header["matrix.0"].update(shape=[1]),
        lambda header, kept: header["vector.1"].update(data_offsets=[0, 3]),
    ],
)
def test_a_damaged_header_is_refused(saved: Path, change: Any) -> None:
    path = rewritten(saved, change)
    with pytest.raises(FormersError):
        Engine(open_program(path))


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FormersError, match="cannot write"):
        save_program(outline(awake(LEARNED)), tmp_path / "file" / "program")
