"""Rows of a source as records of `interactions`, `videos` or `users`.

A `Row` flows in; a `Record` flows out, or None for what makes none, or `Rejected`. Always holds: the same row makes the same bytes,
and its event the same id, whenever it is read.
"""

import base64
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from ingestion.row_hash import hash_event
from ingestion.source import Kind
from ingestion.sources.batch import Row
from ingestion.sources.cells import id_text, is_true, plain, structure, time_ms, words
from topics import catalog, interactions
from topics.catalog import User, Video
from topics.ids import is_id, require_id
from topics.interactions import Interaction
from topics.rejected import Reason, Rejected
from topics.specs import INTERACTIONS, USERS, VIDEOS

TOPICS: Final = {Kind.EVENTS: INTERACTIONS, Kind.VIDEOS: VIDEOS, Kind.USERS: USERS}
#: Columns that stand for a field of milliseconds where that is missing: as databases name times.
_TIMES: Final = {"at": "at_ms", "published_at": "published_ms", "erased_at": "erased_ms"}
_LISTS: Final = ("categories", "tags", "segments")
_STRUCTURES: Final = ("context", "attributes")
_IDS: Final = ("event_id", "user_id", "video_id", "session_id", "recommendation_id")
_REQUIRED: Final = ("user_id", "video_id", "event", "at_ms")
_STRUCTS: Final[dict[Kind, type[Any]]] = {Kind.EVENTS: Interaction, Kind.VIDEOS: Video, Kind.USERS: User}


class Record(NamedTuple):
    """A record of a topic; value None is a tombstone."""

    topic: str
    key: bytes
    value: bytes | None


class RowReader:
    """Makes records of one source's rows.

    Parameters
    ----------
    name : of the source; event ids begin with it
    kind : what its rows are
    columns : for fields that are in a column of another name
    deleted : column that marks deleted rows
    left_out : columns that say nothing of a user, and so are no attributes
    topic : where records go; by default that of the kind
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        *,
        columns: Mapping[str, str] | None = None,
        deleted: str | None = None,
        left_out: Collection[str] = (),
        topic: str | None = None,
    ) -> None:
        self.topic: Final = topic or TOPICS[kind]
        self.kind, self._name, self._deleted = kind, name, deleted
        self._columns = dict(columns or {})
        self._struct = _STRUCTS[kind]
        self._fields: tuple[str, ...] = self._struct.__struct_fields__
        known = {*self._fields, *self.id_fields}
        if wrong := sorted(set(self._columns) - known):
            raise ValueError(f"{', '.join(wrong)}: no field of {kind}, which has {', '.join(sorted(known - {'v'}))}")
        self._no_attribute = {*left_out, *self._columns.values(), *_TIMES, "_id", "id", *self.id_fields}
        if deleted is not None:
            self._no_attribute.add(deleted)

    @property
    def id_fields(self) -> tuple[str, ...]:
        """Fields that are no part of the value: the key of videos and users."""
        return {Kind.VIDEOS: ("video_id",), Kind.USERS: ("user_id",), Kind.EVENTS: ()}[self.kind]

    def entry_id(self, row: Row) -> str:
        """Id of a video or a user: its column, else the row's key. Raises `Rejected`."""
        field = self.id_fields[0]
        column = self._columns.get(field, field)
        value = plain(row.values.get(column))
        found = row.key if value is None and column == field else id_text(field, value)
        require_id(field, found)
        return found

    def record(self, row: Row) -> Record | None:
        """The row's record; None for a deleted event, which no record takes back.

        Raises
        ------
        Rejected
            With the reason and what was found.
        """
        gone = row.deleted or (self._deleted is not None and is_true(row.values.get(self._deleted)))
        if self.kind == Kind.EVENTS:
            return None if gone else self._event(row)
        entry_id = self.entry_id(row)
        return Record(self.topic, entry_id.encode(), None if gone else self._entry(row))

    def _given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the record that the row has."""
        given: dict[str, Any] = {}
        for field in self._fields:
            raw = values.get(self._columns.get(field, field))
            if field == "embedding" and isinstance(raw, bytes | memoryview):
                raw = base64.b64encode(raw).decode()
            value = plain(raw)
            if value is None or value == "":
                continue
            if field.endswith("_ms"):
                value = time_ms(field, value)
            elif field in _LISTS:
                value = words(value)
            elif field in _STRUCTURES:
                value = structure(value)
            elif field in _IDS:
                value = id_text(field, value)
            given[field] = value
        for column, field in _TIMES.items():
            if field in self._fields and field not in given and values.get(column) not in (None, ""):
                if isinstance(values[column], int | float):
                    raise Rejected(Reason.BAD_TIME, f"{column} must be a time; milliseconds are {field}")
                given[field] = time_ms(field, plain(values[column]))
        return given

    def _event(self, row: Row) -> Record:
        given = self._given(row.values)
        if missing := [field for field in _REQUIRED if field not in given]:
            raise Rejected(Reason.MISSING_FIELD, f"missing: {', '.join(missing)}")
        given.setdefault("event_id", "-")
        event: Interaction = self._converted(given, interactions.decode_value)
        if given["event_id"] == "-":
            event = msgspec.structs.replace(event, event_id=self._event_id(row.key, event))
        return Record(self.topic, event.user_id.encode(), interactions.encode(event))

    def _event_id(self, key: str, event: Interaction) -> str:
        if key:
            readable = f"{self._name}:{key}"
            return (
                readable
                if is_id(readable)
                else f"{self._name}:{xxhash.xxh3_128_hexdigest(key.encode(errors='replace'))}"
            )
        seconds = [math.nan if each is None else each for each in (event.watch_seconds, event.duration_seconds)]
        return hash_event(event.user_id, event.video_id, event.event, event.at_ms, *seconds)

    def _entry(self, row: Row) -> bytes:
        given = self._given(row.values)
        if self.kind == Kind.USERS:
            others = {
                name: value
                for name, value in ((str(name), plain(value)) for name, value in row.values.items())
                if name not in self._fields
                and name not in self._no_attribute
                and value is not None
                and not isinstance(value, list | dict)
            }
            stated = given.get("attributes")
            given["attributes"] = others | stated if isinstance(stated, dict) else stated if stated else others
        check = catalog.decode_video_value if self.kind == Kind.VIDEOS else catalog.decode_user_value
        return catalog.encode(self._converted(given, check))

    def _converted(self, given: dict[str, Any], check: Callable[[bytes], Any]) -> Any:
        """The struct of these fields; text may stand for numbers, as in CSV. `check` says what is wrong with others."""
        try:
            return msgspec.convert(given, self._struct, strict=False)
        except msgspec.ValidationError as error:
            check(msgspec.json.encode(given))
            raise Rejected(Reason.WRONG_TYPE, str(error)) from None
