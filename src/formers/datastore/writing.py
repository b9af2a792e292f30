"""Writing a datastore piece by piece: what is interrupted goes on where it stopped, and nothing half-written is seen."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from formers.data.atomic import read_json, write_json
from formers.data.tokenizer import Tokenizer
from formers.datastore.keys import Tap
from formers.datastore.store import (
    KEYS,
    PRECISIONS,
    UNFINISHED,
    VALUE,
    VALUES,
    Datastore,
    Header,
    fingerprint_of_model,
    fingerprint_of_text,
    is_finished,
    write_header,
)
from formers.datastore.windows import Reading
from formers.errors import DataError
from formers.train.task import Tick, untold

GIB = 1 << 30
UNSETTLED = 1 << 24  # bytes of keys that a power cut may cost


def build(
    folder: str | Path,
    reading: Reading,
    tokenizer: Tokenizer,
    *,
    precision: str = "fp32",
    run: str = "",
    tick: Tick = untold,
) -> Datastore:
    """Build a store of one text, or go on with a build of it that was interrupted.

    precision: of the keys, "fp32", "fp16" or "bf16". run: where the model lies, for those who look for it later.
    A store of this very text that is there already is opened. Raises DataError where the folder holds another one, the
    build of another text, or the disk is too small.
    """
    folder, header = Path(folder), new_header(reading, tokenizer, precision, run)
    text = fingerprint_of_text(reading.predicted)
    if is_finished(folder):
        store = Datastore(folder)
        begun = replace(store.header, texts=store.header.texts[:1])  # text may have been added since
        if begun != header.with_text(text, reading.count):
            raise DataError(
                f"{folder} holds another datastore; add to it with `formers datastore add`, or name another --out"
            )
        return store
    _write(folder, header, text, reading, tick)
    return Datastore(folder)


def add(folder: str | Path, reading: Reading, tokenizer: Tokenizer, *, tick: Tick = untold) -> Datastore:
    """Put the entries of another text behind those of a store, or go on with that. The store can be read all the while.

    Raises DataError where the text is in the store already, or the store is of another model.
    """
    folder = Path(folder)
    store = Datastore(folder)
    store.require(reading.model, tokenizer)
    text = fingerprint_of_text(reading.predicted)
    if any(text == known for known, _ in store.header.texts):
        raise DataError(f"this text is in {folder} already: its entries would all be there twice")
    _write(folder, store.header, text, reading, tick)
    return Datastore(folder)


def new_header(reading: Reading, tokenizer: Tokenizer, precision: str, run: str) -> Header:
    """Of a store without entries."""
    if precision not in PRECISIONS:
        raise DataError(f"keys are kept in {', '.join(PRECISIONS)}, not {precision!r}")
    spec: Any = reading.model.spec
    tap = Tap(reading.model)
    return Header(
        dim=tap.dim,
        precision=precision,
        place=tap.place,
        model=fingerprint_of_model(reading.model),
        run=run,
        tokenizer=tokenizer.fingerprint,
        vocab=spec.vocab,
        length=reading.length,
        overlap=reading.overlap,
    )


def _write(folder: Path, header: Header, text: str, reading: Reading, tick: Tick) -> None:
    """Entries of the text behind those of the header; the new header last, which makes them seen."""
    done = _done(folder, header, text, reading)
    require_room(folder, (reading.count - done) * (header.key_bytes + VALUE.itemsize))
    folder.mkdir(parents=True, exist_ok=True)
    noted = {**header.as_json(), "text": text, "count": reading.count, "rows": reading.rows}
    write_json(folder / UNFINISHED, {**noted, "done": done})
    with ExitStack() as stack:
        sizes = {KEYS: header.key_bytes, VALUES: VALUE.itemsize}
        streams = [stack.enter_context(_end_at(folder / name, (header.count + done) * sizes[name])) for name in sizes]

        def settle() -> None:
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
            write_json(folder / UNFINISHED, {**noted, "done": done})

        stack.callback(settle)  # before the streams are closed, whatever ends the reading
        settled = done
        for piece in reading.pieces(done):
            streams[0].write(_packed(piece.keys, header.precision))
            streams[1].write(piece.tokens.numpy().astype(VALUE).tobytes())
            done = piece.first + len(piece.tokens)
            if (done - settled) * header.key_bytes >= UNSETTLED:
                settle()
                settled = done
            tick(done / reading.count)
    write_header(folder, header.with_text(text, reading.count))
    (folder / UNFINISHED).unlink()


def _end_at(path: Path, size: int) -> BinaryIO:
    """The file to be written on from there: what was written behind and not noted is written once more."""
    path.touch()
    stream = path.open("r+b")
    stream.truncate(size)
    stream.seek(0, os.SEEK_END)
    return stream


def _done(folder: Path, header: Header, text: str, reading: Reading) -> int:
    """How many entries of this text an interrupted build has left. Raises DataError if it was another build."""
    if not (folder / UNFINISHED).is_file():
        return 0
    found = read_json(folder / UNFINISHED)
    mine = {**header.as_json(), "text": text, "count": reading.count, "rows": reading.rows}
    mine["texts"] = [list(entry) for entry in header.texts]
    other = [name for name, value in mine.items() if found.get(name) != value]
    if is_finished(folder) and found.get("texts") != mine["texts"] and found.get("text") in dict(header.texts):
        (folder / UNFINISHED).unlink()  # its last step, after the header, was what did not happen
        return 0
    if other:
        raise DataError(
            f"{folder} holds the interrupted build of another text, model or setting ({', '.join(other)} differ): finish "
            f"that one, or remove {folder / UNFINISHED}" + ("" if is_finished(folder) else f" with {folder}")
        )
    return int(found["done"])


def _packed(keys: Tensor, precision: str) -> bytes:
    raw, dtype = PRECISIONS[precision]
    kept = keys.to(dtype)
    if not kept.isfinite().all():
        raise DataError(
            f"some numbers of the keys are too large for {precision}: build the store with --keys bf16, or fp32"
        )
    as_whole = {"<i4": torch.int32, "<i2": torch.int16}[raw]
    return kept.contiguous().view(as_whole).numpy().astype(raw).tobytes()


def require_room(folder: Path, wanted: int) -> None:
    """Raise DataError unless the disk of a folder has that many bytes free."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if wanted > free:
        raise DataError(
            f"{folder} needs {wanted / GIB:.1f} GiB more, and {free / GIB:.1f} GiB are free: keep keys in half the room "
            "(--keys fp16), store less text, or name another disk"
        )
