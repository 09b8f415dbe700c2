"""Where each source has been read to: a compacted topic, written in the transactions that carry what was read.

Key = the source's name, a slash and the position's name (`""` in a source of one piece), value = JSON of schema version 1. One more
record a source, `NAME#`, says what the positions belong to and what has been sent in all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from ingestion.sources.batch import Positions, SourceError
from ingestion.sources.settled import SettledLog
from topics.specs import TopicSpec

SCHEMA_VERSION: Final = 1
_POSITION: Final = "/"
_SUMMARY: Final = "#"


class Totals(msgspec.Struct, frozen=True):
    """What a source has sent since it was first read.

    Attributes
    ----------
    records : with values
    tombstones : records without one
    refused : rows that are in the dead-letter topic
    """

    records: int = 0
    tombstones: int = 0
    refused: int = 0

    def plus(self, other: "Totals") -> "Totals":
        """Both together."""
        return Totals(self.records + other.records, self.tombstones + other.tombstones, self.refused + other.refused)


class Summary(msgspec.Struct, frozen=True):
    """What the positions of a source belong to, and what has been sent."""

    identity: dict[str, str]
    totals: Totals
    v: Literal[1] = 1


class _Position(msgspec.Struct, frozen=True):
    position: Any
    v: Literal[1] = 1


@dataclass
class Stored:
    """All that is stored of one source; `written_ms` is when that was last changed, milliseconds since 1970."""

    summary: Summary | None = None
    positions: Positions = field(default_factory=dict)
    written_ms: int = 0


def positions_topic(app: str) -> str:
    """Name of the topic."""
    return f"{app}-source-positions"


def positions_spec(app: str) -> TopicSpec:
    """The topic as it must be: one partition, as all of it is read at once."""
    return TopicSpec(positions_topic(app), 1, {"cleanup.policy": "compact"})


def encode_positions(
    name: str, positions: Mapping[str, Any], summary: Summary | None
) -> list[tuple[bytes, bytes | None]]:
    """Records of the topic: a position that is None is forgotten, and so is a summary."""
    records: list[tuple[bytes, bytes | None]] = [
        (f"{name}{_POSITION}{part}".encode(), None if position is None else msgspec.json.encode(_Position(position)))
        for part, position in positions.items()
    ]
    return [*records, (f"{name}{_SUMMARY}".encode(), None if summary is None else msgspec.json.encode(summary))]


def read_positions(bootstrap: str, app: str) -> dict[str, Stored]:
    """What is stored, by the source's name; the topic must exist.

    Raises
    ------
    SourceError
        A record is of another schema.
    TopicsUnavailable
        The brokers did not answer in time, or refused.
    """
    found: dict[str, Stored] = {}
    log = SettledLog(bootstrap, positions_topic(app))
    try:
        for message in log.advance():
            _take(found, message.key() or b"", message.value(), message.timestamp()[1])
    finally:
        log.close()
    return {name: stored for name, stored in found.items() if stored.summary is not None or stored.positions}


def _take(found: dict[str, Stored], key: bytes, value: bytes | None, written_ms: int) -> None:
    text = key.decode()
    # A name has neither sign, so the first one ends it.
    end = next((at for at, sign in enumerate(text) if sign in _POSITION + _SUMMARY), len(text))
    name, sign, part = text[:end], text[end : end + 1], text[end + 1 :]
    stored = found.setdefault(name, Stored())
    stored.written_ms = max(stored.written_ms, written_ms)
    try:
        if sign == _SUMMARY:
            stored.summary = None if value is None else msgspec.json.decode(value, type=Summary)
        elif value is None:
            stored.positions.pop(part, None)
        else:
            stored.positions[part] = msgspec.json.decode(value, type=_Position).position
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SourceError(
            f"the position of the source {name!r} cannot be read ({error}): a newer Headrace may have written it;"
            " pull it with that one, or forget it with `headrace pull forget`"
        ) from error
