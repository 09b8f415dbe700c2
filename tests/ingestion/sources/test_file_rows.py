"""Rows of files from any place on: those before it are not read again, those behind it all are, and half a line is left for later."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from ingestion.bad_file import BadFile
from ingestion.sources.batch import Row, Unreadable
from ingestion.sources.file_rows import rows_from

ROWS = [{"id": str(number), "text": text} for number, text in enumerate(["a", 'b "c"', "two\nlines", "é", ""])]


def values(found: Iterator[tuple[int, Row | Unreadable]]) -> list[Any]:
    return [row.values if isinstance(row, Row) else row for _, row in found]


def written(path: Path) -> Path:
    if path.name.endswith("parquet"):
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    if ".csv" in path.name:
        cells = "".join('{id},"{text}"\r\n'.format(id=row["id"], text=row["text"].replace('"', '""')) for row in ROWS)
        text = "﻿id,text\r\n" + cells
    else:
        import json

        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "a.parquet"])
def test_reading_goes_on_from_any_place(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    everything = list(rows_from(path, 0, finished=True))
    assert [row.values for _, row in everything if isinstance(row, Row)] == ROWS
    for count, (place, _) in enumerate(everything, 1):
        assert values(rows_from(path, place, finished=True)) == ROWS[count:]


def test_half_a_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    for name, whole, half, rest in [
        ("a.jsonl", '{"id": 1}\n', '{"id"', ": 2}\n"),
        ("a.csv", "id\n1\n", "2", "3\n"),
        ("b.csv", 'id\n"1"\n', '"2\n', '3"\n'),
    ]:
        path = tmp_path / name
        path.write_text(whole + half)
        found = list(rows_from(path, 0, finished=False))
        assert len(found) == 1, name
        with path.open("a") as file:
            file.write(rest)
        (later,) = values(rows_from(path, found[-1][0], finished=False))
        assert str(later["id"]).replace("\n", "") in ("2", "23"), name


def test_bad_lines_are_told_from_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n1,a\n2\n3,\xff\n4,d\n")
    good, short, bytes_, last = values(rows_from(path, 0, finished=True))
    assert (good["id"], last["id"]) == ("1", "4")
    assert (short.raw, short.why.detail) == (b"2\n", "1 cells, where the first line has 2")
    assert (bytes_.raw, bytes_.why.detail) == (b"3,\xff\n", "not UTF-8")
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"id": 1}\nnonsense\n[1]\n\n{"id": 2}')
    first, bad, worse, second = values(rows_from(lines, 0, finished=True))
    assert (first["id"], second["id"]) == (1, 2)
    assert {bad.raw, worse.raw} == {b"nonsense\n", b"[1]\n"}


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    for name, content in [
        ("a.parquet", b"PAR1 but no more"),
        ("a.csv.gz", gzip.compress(b"id\n1\n" * 999)[:40]),
        ("a.csv", b"a,a\n"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadFile, match=name):
            list(rows_from(path, 0, finished=True))
