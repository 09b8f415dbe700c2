"""Headrace's own files: events, videos and users as CSV, Parquet or JSON lines with the columns named here.

Events: `user_id, video_id, event, at_ms`, optionally `watch_seconds, duration_seconds, event_id`; other columns are
ignored. An event without an id gets the hash of its values, so that a row that is there twice counts once.
Videos and users: `video_id` or `user_id` and the fields of `topics.catalog`; in CSV lists are joined by "|".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from ingestion.bad_file import BadFile, BadRow
from ingestion.columns import JSON_LINES_SUFFIXES, Columns, has_suffix, open_bytes, unknown_values
from ingestion.event_table import LATEST_MS, EventTable, build_event_table
from ingestion.row_hash import hash_event
from topics.catalog import User, Video
from topics.interactions import EVENTS, Event, Interaction

EVENT_COLUMNS: Final = ("user_id", "video_id", "event", "at_ms")
_LISTS: Final = ("categories", "tags", "segments")
_Id = str | int
_Seconds = Annotated[float, msgspec.Meta(ge=0)] | None
_Entry = TypeVar("_Entry", Video, User)
_Line = TypeVar("_Line")


class _EventLine(msgspec.Struct):
    user_id: _Id
    video_id: _Id
    event: Event
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]
    watch_seconds: _Seconds = None
    duration_seconds: _Seconds = None
    event_id: _Id | None = None


def read_table(path: Path) -> EventTable:
    """Read a file of events.

    Raises
    ------
    BadFile, BadRow
        A column is missing, or a value is not what it must be.
    """
    if has_suffix(path, JSON_LINES_SUFFIXES):
        return _read_json_lines(path)
    columns = Columns(path)
    columns.require(*EVENT_COLUMNS)
    events = columns.text("event")
    codes, unknown = unknown_values(events, list(EVENTS))
    if unknown is not None:
        raise columns.bad_row(unknown, f"event {str(events[unknown])[:40]!r} is none of {', '.join(EVENTS)}")
    nothing = np.full(columns.rows, np.nan)
    watch_s = columns.numbers("watch_seconds") if "watch_seconds" in columns.names else nothing
    duration_s = columns.numbers("duration_seconds") if "duration_seconds" in columns.names else nothing
    user_ids, video_ids, at_ms = columns.text("user_id"), columns.text("video_id"), columns.integers("at_ms")
    given = columns.text("event_id", missing_ok=True) if "event_id" in columns.names else None
    if given is None or given.null_count:
        ids = [None] * columns.rows if given is None else given.to_pylist()
        values = (user_ids.to_pylist(), video_ids.to_pylist(), events.to_pylist())
        hashed = map(hash_event, *values, at_ms.tolist(), watch_s.tolist(), duration_s.tolist())
        given = pa.array([one or other for one, other in zip(ids, hashed, strict=True)], type=pa.string())
    return build_event_table(
        event_ids=given,
        user_ids=user_ids,
        video_ids=video_ids,
        codes=codes.astype(np.uint8),
        at_ms=at_ms,
        watch_seconds=watch_s,
        duration_seconds=duration_s,
        rows=columns.rows,
        bad_row=columns.bad_row,
    )


def read_events(path: Path) -> Iterator[Interaction]:
    """Yield the file's events by time."""
    return read_table(path).interactions()


def read_videos(path: Path) -> Iterator[tuple[str, Video]]:
    """Yield id and video of a file of videos, in its order."""
    return _read_entries(path, "video_id", Video)


def read_users(path: Path) -> Iterator[tuple[str, User]]:
    """Yield id and user of a file of users, in its order; columns that are no field of `User` become attributes."""
    return _read_entries(path, "user_id", User)


def _read_json_lines(path: Path) -> EventTable:
    found = list(_lines(path, _EventLine))
    lines = [line for line, _ in found]
    rows = [row for _, row in found]
    watch_s = [np.nan if row.watch_seconds is None else row.watch_seconds for row in rows]
    duration_s = [np.nan if row.duration_seconds is None else row.duration_seconds for row in rows]
    event_ids = [
        str(row.event_id)
        if row.event_id is not None
        else hash_event(str(row.user_id), str(row.video_id), row.event, row.at_ms, watch, duration)
        for row, watch, duration in zip(rows, watch_s, duration_s, strict=True)
    ]
    return build_event_table(
        event_ids=pa.array(event_ids, type=pa.string()),
        user_ids=pa.array([str(row.user_id) for row in rows], type=pa.string()),
        video_ids=pa.array([str(row.video_id) for row in rows], type=pa.string()),
        codes=np.array([EVENTS.index(row.event) for row in rows], dtype=np.uint8),
        at_ms=np.array([row.at_ms for row in rows], dtype=np.int64),
        watch_seconds=np.array(watch_s, dtype=np.float64),
        duration_seconds=np.array(duration_s, dtype=np.float64),
        rows=len(rows),
        bad_row=lambda row, why: BadRow(path, lines[row], why),
    )


def _lines(path: Path, kind: type[_Line]) -> Iterator[tuple[int, _Line]]:
    """Yield the number of each line that is not blank, and what it holds."""
    decode = msgspec.json.Decoder(kind).decode
    with open_bytes(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadRow(path, number, str(error)) from None
        except (OSError, EOFError) as error:
            raise BadFile(path, f"unreadable after line {number}: {error}") from None


def _read_entries(path: Path, id_column: str, kind: type[_Entry]) -> Iterator[tuple[str, _Entry]]:
    for line_of, row in _entry_rows(path, id_column):
        entry_id = row.pop(id_column, None)
        if isinstance(entry_id, int) and not isinstance(entry_id, bool):
            entry_id = str(entry_id)
        if not isinstance(entry_id, str) or not entry_id:
            raise line_of(f"{id_column} is missing")
        fields = {name: value for name, value in row.items() if name in kind.__struct_fields__ and value is not None}
        if kind is User:
            others = {name: value for name, value in row.items() if name not in fields and value is not None}
            fields["attributes"] = others | fields.get("attributes", {})
        try:
            yield entry_id, msgspec.convert(fields, kind)
        except msgspec.ValidationError as error:
            raise line_of(str(error)) from None


def _entry_rows(path: Path, id_column: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each row with a function that makes its error."""
    if has_suffix(path, JSON_LINES_SUFFIXES):
        for number, row in _lines(path, dict[str, Any]):
            yield lambda why, number=number: BadRow(path, number, why), row
        return
    columns = Columns(path)
    columns.require(id_column)
    for number, row in enumerate(columns.records()):
        yield lambda why, number=number: columns.bad_row(number, why), _from_cells(row) if columns.is_csv else row


def _from_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Give the text cells of a CSV row the types of the fields that they fill; what does not convert stays text."""
    for name in _LISTS:
        if row.get(name):
            row[name] = [word.strip() for word in row[name].split("|") if word.strip()]
    for name in ("duration_seconds", "published_ms", "hidden"):
        cell = row.get(name)
        if cell is not None:
            lowered = cell.strip().lower()
            try:
                row[name] = msgspec.json.decode(lowered)
            except msgspec.DecodeError:
                row[name] = cell
            if name == "hidden" and lowered in ("0", "1"):
                row[name] = lowered == "1"
    return row
