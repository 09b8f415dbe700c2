"""Small files of an hour become one.

Flows in: files of a dataset, partition and hour that follow each other. Flows out: one that has all their rows, in their order. Always
holds: the new file is there as a whole before the first of the others goes, and its name says that it has all of them; so a crash in
between loses nothing, and whoever comes next removes what it has replaced (`Lake.tidy`).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from ingestion.lake.files import REFUSED, LakeFile
from ingestion.lake.store import Lake
from ingestion.lake.tables import GROUP_ROWS, Meta, RowFile, meta_of

#: A file with so many rows is large enough: 20 MB or so of events.
MOST_ROWS = 1_000_000


def compact(
    lake: Lake,
    files: list[LakeFile],
    most_rows: int = MOST_ROWS,
    going_on: Callable[[int, int], None] = lambda _done, _of: None,
) -> tuple[int, int]:
    """Merge files; `going_on` is told how many of the groups are done. Returns how many files became how many."""
    groups = list(_groups(lake, whole(lake, files), most_rows))
    merged = 0
    for done, group in enumerate(groups):
        going_on(done, len(groups))
        _merge(lake, group)
        merged += len(group)
    return merged, len(groups)


def whole(lake: Lake, files: list[LakeFile]) -> list[LakeFile]:
    """Those of the files whose ranges are in the lake: what is refused of one that is not may be written once more."""
    ends = lake.ends(files)
    return [
        file
        for file in files
        if not file.dataset.startswith(REFUSED)
        or file.last < ends.get((file.dataset.rpartition("=")[2], file.partition), 0)
    ]


def _groups(lake: Lake, files: list[LakeFile], most_rows: int) -> Iterator[list[LakeFile]]:
    """Files to be merged with each other, two at least."""
    for _, same in groupby(sorted(files), lambda file: (file.dataset, file.partition, file.date, file.hour)):
        hour = list(same)
        if len(hour) < 2:
            continue
        group: list[LakeFile] = []
        rows = 0
        schema = None
        for file in hour:
            with lake.folder.open(file.path) as opened:
                found = pq.ParquetFile(opened)
                count, fields = found.metadata.num_rows, found.schema_arrow.remove_metadata()
            # A hole is no part of a file, or nobody would see it.
            follows = bool(group) and (file.first == group[-1].last + 1 or file.dataset.startswith(REFUSED))
            if not follows or rows + count > most_rows or fields != schema:
                if len(group) > 1:
                    yield group
                group, rows, schema = [], 0, fields
            group.append(file)
            rows += count
        if len(group) > 1:
            yield group


def _merge(lake: Lake, group: list[LakeFile]) -> None:
    merged = group[0]._replace(last=group[-1].last)
    with lake.folder.workspace("rewrite") as work:
        path = work / "part"
        _join(lake, group, path)
        lake.folder.publish(path, merged.path)
    for file in group:
        if file != merged:
            lake.folder.remove(file.path)


def _join(lake: Lake, group: list[LakeFile], path: Path) -> None:
    """Copy all rows into one file, some at a time."""
    with ExitStack() as closing:
        into, meta = None, None
        for file in group:
            with lake.folder.open(file.path) as opened:
                found = pq.ParquetFile(opened)
                said = meta_of(found, lake.folder.where(file.path))
                meta = said if meta is None else _both(meta, said)
                into = into or closing.enter_context(RowFile(path, found.schema_arrow))
                for batch in found.iter_batches(GROUP_ROWS):
                    into.add(batch)
        if into is not None and meta is not None:
            into.finish(meta)


def _both(one: Meta, other: Meta) -> Meta:
    return msgspec.structs.replace(other, forgotten=one.forgotten + other.forgotten)
