"""A folder: each row once, whether its file grows, moves, is copied, written anew or read in pieces."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from ingestion.source import Kind
from ingestion.sources.batch import Row, SourceError, Unreadable
from ingestion.sources.folder import FolderSource
from tests.ingestion.sources.log import Log, once


def put(path: Path, *ids: int, append: bool = False, settled: bool = True) -> Path:
    """Write a file of these ids; `settled`: long ago."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.table({"video_id": [str(each) for each in ids]}), path)
    else:
        header = "" if append or path.suffix == ".jsonl" else "video_id\n"
        lines = [json.dumps({"video_id": each}) if path.suffix == ".jsonl" else str(each) for each in ids]
        with path.open("a" if append else "w") as file:
            file.write(header + "".join(f"{line}\n" for line in lines))
    if settled:
        old = time.time() - 60
        os.utime(path, (old, old))
    return path


class Reader:
    """Passes over a folder, each from where the last one ended."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self.folder, self.how = folder, how
        self.positions: dict[str, Any] = {}

    def read(self, batches: int = 1_000_000) -> list[int]:
        """Ids of one pass, or of so many of its batches."""
        rows: list[Row | Unreadable] = []
        for count, batch in enumerate(FolderSource(self.folder, **self.how).batches(dict(self.positions)), 1):
            rows += batch.rows
            self.positions |= json.loads(json.dumps(dict(batch.positions)))
            if count == batches:
                break
        return sorted(int(row.values["video_id"]) for row in rows if isinstance(row, Row))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_is_read_once_in_however_many_pieces(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, *range(10))
    reader = Reader(tmp_path, batch_rows=3)
    assert reader.read(batches=1) == [0, 1, 2]
    assert reader.read(batches=2) == [3, 4, 5, 6, 7, 8]
    assert reader.read() == [9]
    assert reader.read() == []
    os.utime(tmp_path / name)  # touched, and no more
    time.sleep(0.01)
    assert Reader(tmp_path, settled_s=0).read() == list(range(10))
    reader.how["settled_s"] = 0
    assert reader.read() == []


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_appended_is_read_even_while_it_is_written(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name, 1, 2, settled=False)
    reader = Reader(tmp_path)
    assert reader.read() == [1, 2]
    put(path, 3, append=True, settled=False)
    with path.open("a") as file:
        file.write('{"video_id": 4' if name.endswith("jsonl") else "4")
    assert reader.read() == [3]
    with path.open("a") as file:
        file.write("}\n" if name.endswith("jsonl") else "\n")
    assert reader.read() == [4]
    put(path, 5, append=True)
    assert reader.read() == [5]
    assert reader.read() == []


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_moved_or_copied_file_is_the_same_and_a_rewritten_one_is_not(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name, 1, 2)
    reader = Reader(tmp_path)
    assert reader.read() == [1, 2]
    (tmp_path / "done").mkdir()
    moved = path.rename(tmp_path / "done" / f"b{path.suffix}")
    assert reader.read() == []
    shutil.copy(moved, tmp_path / f"c{path.suffix}")
    os.utime(tmp_path / f"c{path.suffix}", (1, 1))
    assert reader.read() == []
    put(moved, 7, 8, 9)
    assert reader.read() == [7, 8, 9]


def test_a_log_that_is_rotated_is_read_on(tmp_path: Path) -> None:
    path = put(tmp_path / "log.jsonl", 1)
    reader = Reader(tmp_path)
    assert reader.read() == [1]
    put(path, 2, append=True)
    path.rename(tmp_path / "log.1.jsonl")
    put(tmp_path / "log.jsonl", 3)
    assert reader.read() == [2, 3]


def test_unfinished_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", 1, settled=False)
    put(tmp_path / ".hidden.csv", 2)
    put(tmp_path / "b.csv.part", 3)
    put(tmp_path / "c.csv", 4)
    (tmp_path / "readme.txt").write_text("no data")
    assert Reader(tmp_path).read() == [4]
    assert Reader(tmp_path, pattern="*.parquet", settled_s=0).read() == [1]
    with pytest.raises(SourceError, match="no folder"):
        FolderSource(tmp_path / "nothing")


@pytest.mark.broker
def test_good_rows_of_a_bad_file_arrive_and_bad_ones_are_dead_letters(tmp_path: Path, log: Log) -> None:
    put(tmp_path / "a.csv", 1, 2)
    with (tmp_path / "a.csv").open("a") as file:
        file.write("3,too,many\n4\n\n")
    (tmp_path / "b.parquet").write_bytes(b"nothing of the kind")
    for name in ("a.csv", "b.parquet"):
        os.utime(tmp_path / name, (1, 1))
    for expected in ((3, 2), (0, 0)):
        sent = once(log.pull(Kind.VIDEOS), FolderSource(tmp_path))
        assert (sent.records, sent.refused) == expected
    assert log.counts() == {"1": 1, "2": 1, "4": 1}
    assert sorted(letter.key or b"" for letter in log.dead()) == [b"a.csv, byte 13", b"b.parquet"]


@pytest.mark.broker
def test_a_row_of_a_file_deletes(tmp_path: Path, log: Log) -> None:
    (tmp_path / "a.jsonl").write_text('{"video_id": "a"}\n{"video_id": "a", "deleted": true}\n')
    once(log.pull(Kind.VIDEOS), FolderSource(tmp_path, settled_s=0))
    assert [video is None for _, video in log.videos()] == [False, True]
