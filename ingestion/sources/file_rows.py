"""Rows of one file from a place on: CSV and JSON lines by bytes, so that what is appended is read without the rest; Parquet by rows.

A path and a place flow in; rows, each with the place behind it, flow out. Always holds: of a text file only whole lines are taken,
until it is known to be finished.
"""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet

from ingestion.bad_file import BadFile
from ingestion.columns import CSV_SUFFIXES, JSON_LINES_SUFFIXES, PARQUET_SUFFIXES, has_suffix
from ingestion.sources.batch import Row, Unreadable
from topics.rejected import Reason, Rejected

SUFFIXES: Final = (*CSV_SUFFIXES, *JSON_LINES_SUFFIXES, *PARQUET_SUFFIXES)
#: A line without an end would be read into memory as a whole.
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
_PARQUET_ROWS: Final = 1_000


def grows(path: Path) -> bool:
    """Whether a file of this kind can be appended to, and read on from where it ended."""
    return not path.name.lower().endswith(".gz") and not has_suffix(path, PARQUET_SUFFIXES)


def rows_from(path: Path, start: int, *, finished: bool) -> Iterator[tuple[int, Row | Unreadable]]:
    """Yield what stands behind `start` (0, or a place that this has yielded), each with the place behind it.

    Parameters
    ----------
    finished : nobody writes any more: the last line counts, with or without an end

    Raises
    ------
    OSError, BadFile
        The file is gone, or none of its kind.
    """
    if has_suffix(path, PARQUET_SUFFIXES):
        return _parquet(path, start)
    if has_suffix(path, JSON_LINES_SUFFIXES):
        return _json_lines(path, start, finished)
    return _csv(path, start, finished)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _lines(file: IO[bytes], path: Path, finished: bool) -> Iterator[bytes]:
    try:
        while line := file.readline(MAX_LINE_BYTES):
            if line.endswith(b"\n") or finished:
                yield line
            elif len(line) == MAX_LINE_BYTES:
                raise BadFile(path, f"has a line of more than {MAX_LINE_BYTES} bytes")
            else:
                return
    except (EOFError, gzip.BadGzipFile) as error:
        raise BadFile(path, f"not a whole gzip file: {error}") from error


def _json_lines(path: Path, start: int, finished: bool) -> Iterator[tuple[int, Row | Unreadable]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with _open(path) as file:
        file.seek(start)
        at = start
        for line in _lines(file, path, finished):
            place, at = f"{path.name}, byte {at}", at + len(line)
            if not line.strip():
                continue
            try:
                yield at, Row("", decode(line), place=place)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                yield at, Unreadable(place, line, Rejected(Reason.MALFORMED_JSON, str(error)))


def _csv(path: Path, start: int, finished: bool) -> Iterator[tuple[int, Row | Unreadable]]:
    with _open(path) as file:
        header_lines = _Counted(_lines(file, path, finished))
        header = next(csv.reader(header_lines), None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise BadFile(path, f"two columns have one name: {', '.join(header)}")
        at = max(start, header_lines.bytes_read)
        file.seek(at)
        lines = _Counted(_lines(file, path, finished), at)
        reader = csv.reader(lines)
        while True:
            place = f"{path.name}, byte {lines.bytes_read}"
            lines.taken.clear()
            try:
                cells = next(reader, None)
                why = None
            except csv.Error as error:
                cells, why = [], str(error)
            if cells is None or (lines.ended and not finished):
                return  # the end, or inside quotes that somebody has yet to close
            if why is None and not cells:
                continue
            if why is None and len(cells) != len(header):
                why = f"{len(cells)} cells, where the first line has {len(header)}"
            raw = b"".join(lines.taken)
            if why is None and not _is_text(raw):
                why = "not UTF-8"
            if why is not None:
                yield lines.bytes_read, Unreadable(place, raw, Rejected(Reason.WRONG_TYPE, why))
            else:
                yield lines.bytes_read, Row("", dict(zip(header, cells, strict=True)), place=place)


class _Counted:
    """Lines as text, with the bytes that they had."""

    def __init__(self, lines: Iterator[bytes], at: int = 0) -> None:
        self._lines = lines
        self._first = at == 0
        self.bytes_read = at
        self.ended = False
        self.taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.bytes_read += len(line)
        self.taken.append(line)
        first, self._first = self._first, False
        return line.decode("utf-8-sig" if first else "utf-8", errors="replace")


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parquet(path: Path, start: int) -> Iterator[tuple[int, Row | Unreadable]]:
    with path.open("rb") as file:
        try:
            at = 0
            for batch in pa.parquet.ParquetFile(file).iter_batches(_PARQUET_ROWS):
                if at + batch.num_rows <= start:
                    at += batch.num_rows
                    continue
                for values in batch.to_pylist():
                    at += 1
                    if at > start:
                        yield at, Row("", values, place=f"{path.name}, row {at}")
        except (pa.ArrowException, OSError) as error:
            raise BadFile(path, f"not a readable Parquet file: {error}") from None
