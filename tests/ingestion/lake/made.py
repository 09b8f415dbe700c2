"""Records as topics have them, good and bad, and files of them in a lake."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ingestion.lake.files import LakeFile
from ingestion.lake.store import Lake
from ingestion.lake.tables import Judge, Taken
from ingestion.lake.writer import Writer
from topics.dead_letter import DeadLetter
from topics.interactions import Event, Interaction, encode
from topics.recommendations import encode_list

#: 12:00 of a day.
NOON_MS = 1_790_000_000_000 // 86_400_000 * 86_400_000 + 12 * 3_600_000
HOUR_MS = 3_600_000
JUDGE = Judge(1, 600_000)
URLS = ("folder", "memory")


def url_of(kind: str, folder: Path) -> str:
    """Of a lake that is not there yet."""
    return f"memory://{uuid.uuid4()}/lake" if kind == "memory" else str(folder / "lake")


def event(n: int, user: str = "", at_ms: int = NOON_MS, kind: Event = "watch", **other: object) -> Interaction:
    user_id = user or f"user{n % 5}"
    return Interaction(f"event{n}", user_id, f"video{n % 7}", kind, at_ms, **other)  # type: ignore[arg-type] # any


def taken(n: int, user: str = "", at_ms: int = NOON_MS, arrived_ms: int = NOON_MS) -> Taken:
    """An event at an offset."""
    made = event(n, user, at_ms)
    return Taken(made.user_id.encode(), encode(made), n, arrived_ms)


def listed(n: int, user: str = "user1", at_ms: int = NOON_MS) -> Taken:
    """A served list at an offset."""
    inputs = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = encode_list(f"list{n}", at_ms, "owner", ["video1", "video2"], [1], 5, inputs, arm="a", experiment=7)
    return Taken(user.encode(), value, n, at_ms)


def dead(n: int, value: bytes = b"{", key: bytes | None = b"user1", arrived_ms: int = NOON_MS) -> Taken:
    """A dead letter at an offset."""
    letter = DeadLetter(key, value, "malformed_json", "it ends", "interactions", 0, n, len(value))
    return Taken(key, value, n, arrived_ms, letter.headers)


def fill(
    lake: Lake, topic: str, records: Sequence[Taken], sizes: Sequence[int], first: int | None = None
) -> list[LakeFile]:
    """Write records of partition 0 as files of so many each."""
    writer, files, at = Writer(lake, JUDGE, {}), [], 0
    next_ = records[0].offset if first is None else first
    for size in sizes:
        files.append(writer.write((topic, 0), next_, records[at : at + size]))
        at, next_ = at + size, files[-1].last + 1
    return files


def rows(lake: Lake, dataset: str) -> list[dict[str, object]]:
    """All rows of a dataset as any reader of plain files finds them, by offset."""
    import pyarrow.parquet as pq

    found: list[dict[str, object]] = []
    for path in lake.folder.files(dataset):
        with lake.folder.open(path) as file:
            found += pq.ParquetFile(file).read().to_pylist()
    return sorted(found, key=lambda row: int(str(row["kafka_offset"])))


def offsets(lake: Lake, dataset: str) -> list[int]:
    """Offsets of all rows, as often as they are there."""
    return [int(str(row["kafka_offset"])) for row in rows(lake, dataset)]
