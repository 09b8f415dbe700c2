"""Served lists of the lake as JSON, for tools that read nothing else.

Flows in: files of `recommendations`. Flows out: one array, an object a line, in the order of the files. Always holds: the file appears
as a whole; a list that is there twice, because a merge was killed, is written once.
"""

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path

import orjson
import pyarrow.parquet as pq

from ingestion.lake.files import LakeFile, replaced
from ingestion.lake.store import Lake
from ingestion.lake.tables import GROUP_ROWS, meta_of
from topics.specs import RECOMMENDATIONS

NAME = "recommendation_logs.json"
#: What the ranker was given is of use to lessons alone, and ten times the rest: the lake has it.
_COLUMNS = ("recommendation_id", "user_id", "at_ms", "source", "video_ids", "explored", "arm", "first", "experiment")


def export_recommendations(
    lake: Lake,
    files: Iterable[LakeFile],
    target: Path,
    since: str = "",
    until: str = "9999-12-31",
    going_on: Callable[[int, int], None] = lambda _done, _of: None,
) -> int:
    """Write the lists that arrived from one date (UTC, as YYYY-MM-DD) to another, both included; returns how many."""
    every = list(files)
    twice = replaced(every)
    chosen = [
        file
        for file in sorted(every, key=lambda each: (each.date, each.hour, each.partition, each.first))
        if file.dataset == RECOMMENDATIONS and since <= file.date <= until and file not in twice
    ]
    part = target.with_name(f".{target.name}.part")
    count = 0
    try:
        with part.open("wb") as out:
            for done, file in enumerate(chosen):
                going_on(done, len(chosen))
                with lake.folder.open(file.path) as opened:
                    found = pq.ParquetFile(opened)
                    meta_of(found, lake.folder.where(file.path))
                    for batch in found.iter_batches(GROUP_ROWS // 10, columns=list(_COLUMNS)):
                        for row in batch.to_pylist():
                            row["at_ms"] = _ms(row["at_ms"])
                            out.write((b",\n" if count else b"[\n") + orjson.dumps(row))
                            count += 1
            out.write(b"\n]\n" if count else b"[]\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def _ms(at: datetime.datetime) -> int:
    return (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(milliseconds=1)
