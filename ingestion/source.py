"""Which format a data file has and what it holds, told by the names of its columns; and the reader for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from ingestion import canonical, kuairand, movielens
from ingestion.bad_file import BadFile, BadRow
from ingestion.columns import JSON_LINES_SUFFIXES, Columns, has_suffix, open_bytes
from ingestion.event_table import EventTable
from topics.catalog import User, Video


class Format(StrEnum):
    """Families of files that can be read."""

    KUAIRAND = "kuairand"
    MOVIELENS = "movielens"
    HEADRACE = "headrace"


class Kind(StrEnum):
    """What the rows of a file are."""

    EVENTS = "events"
    VIDEOS = "videos"
    USERS = "users"


@dataclass(frozen=True)
class Source:
    """A file of known format and kind."""

    path: Path
    format: Format
    kind: Kind


_EVENT_READERS: Final = {
    Format.KUAIRAND: kuairand.read_table,
    Format.MOVIELENS: movielens.read_table,
    Format.HEADRACE: canonical.read_table,
}
_VIDEO_READERS: Final = {
    Format.KUAIRAND: kuairand.read_videos,
    Format.MOVIELENS: movielens.read_videos,
    Format.HEADRACE: canonical.read_videos,
}
_USER_READERS: Final = {Format.KUAIRAND: kuairand.read_users, Format.HEADRACE: canonical.read_users}
_SIGNATURES: Final = (  # first match wins: from the most to the least specific
    (Format.HEADRACE, Kind.EVENTS, {"user_id", "video_id", "event", "at_ms"}),
    (Format.KUAIRAND, Kind.EVENTS, {"user_id", "video_id", "time_ms", "play_time_ms"}),
    (Format.MOVIELENS, Kind.EVENTS, {"userId", "movieId", "rating", "timestamp"}),
    (Format.KUAIRAND, Kind.VIDEOS, {"video_id", "author_id", "upload_dt"}),
    (Format.MOVIELENS, Kind.VIDEOS, {"movieId", "title", "genres"}),
    (Format.KUAIRAND, Kind.USERS, {"user_id", "user_active_degree"}),
)


def sniff(path: Path, format: Format | None = None) -> Source:  # noqa: A002 - the command's own word, `--format`
    """Find out what `path` holds; `format`, if given, must agree with its columns.

    Raises
    ------
    OSError
        The file is absent or unreadable.
    BadFile
        No known format has its columns.
    """
    names = _column_names(path)
    for candidate, kind, wanted in _SIGNATURES:
        if wanted <= names and format in (None, candidate):
            return Source(path, candidate, kind)
    if format in (None, Format.HEADRACE) and len(names & {"user_id", "video_id"}) == 1:
        return Source(path, Format.HEADRACE, Kind.VIDEOS if "video_id" in names else Kind.USERS)
    wanted_text = "; ".join(
        f"{candidate} {kind}: {', '.join(sorted(wanted))}"
        for candidate, kind, wanted in _SIGNATURES
        if format in (None, candidate)
    )
    raise BadFile(path, f"unknown columns {', '.join(sorted(names))}; expected {wanted_text}")


def read_event_table(path: Path, format: Format | None = None) -> EventTable:  # noqa: A002
    """Read a file of events in any format.

    Raises
    ------
    OSError, BadFile, BadRow
        The file is absent, holds no events, or a row of it is wrong.
    """
    return _EVENT_READERS[_expect(path, format, Kind.EVENTS).format](path)


def read_videos(path: Path, format: Format | None = None) -> Iterator[tuple[str, Video]]:  # noqa: A002
    """Read a file of videos in any format; errors as `read_event_table`, those of a row when it is reached."""
    return _VIDEO_READERS[_expect(path, format, Kind.VIDEOS).format](path)


def read_users(path: Path, format: Format | None = None) -> Iterator[tuple[str, User]]:  # noqa: A002
    """Read a file of users in any format that has one; errors as `read_videos`."""
    return _USER_READERS[_expect(path, format, Kind.USERS).format](path)


def _expect(path: Path, format: Format | None, kind: Kind) -> Source:  # noqa: A002
    source = sniff(path, format)
    if source.kind != kind:
        raise BadFile(path, f"holds {source.kind}, expected {kind}")
    return source


def _column_names(path: Path) -> set[str]:
    if not has_suffix(path, JSON_LINES_SUFFIXES):
        return set(Columns.header(path))
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    return set(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    raise BadRow(path, number, str(error)) from None
    raise BadFile(path, "is empty")
