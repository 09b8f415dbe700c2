"""What the demo replays: KuaiRand's two weeks where they are at hand, else a made-up audience.

A folder flows in; a catalogue and a stream of events in order of time flow out, cut after a number of rows. All times
are moved by the same amount, so that the log ends now: the worker reads decay off event times, and whoever likes
something by hand would otherwise come years after everybody else.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from ingestion.event_table import EventTable
from ingestion.simulate import Audience
from ingestion.source import read_event_table, read_users, read_videos
from topics.catalog import User, Video
from topics.interactions import Event, Interaction, event_code

FOLDER = "kuairand-pure"
#: Where the data lies if HEADRACE_DATA does not say: beside the project.
BESIDE = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
#: Rows of the made-up audience, which has no end of its own.
SIMULATED_ROWS = 100_000
SIMULATED_USERS, SIMULATED_VIDEOS = 2_000, 2_000
#: A row of either source is one video shown to a user; it begins with this event.
FIRST_OF_ROW: Event = "impression"


@dataclass(frozen=True)
class DemoSource:
    """Videos by id, the events of `rows` rows, and what is known of users beside them."""

    name: str
    about: str
    videos: list[tuple[str, Video]]
    events: Iterator[Interaction]
    events_expected: int
    rows: int
    users: list[tuple[str, User]]


def open_source(data: Path | None, seed: int, limit: int | None, now_ms: int) -> DemoSource:
    """Read the log in `data` (None: beside the project), or make an audience up.

    Parameters
    ----------
    limit : rows; None for all
    now_ms : time of the last event, milliseconds since 1970

    Raises
    ------
    BadFile, BadRow
        The log is there and cannot be read.
    """
    folder = (data or BESIDE) / FOLDER
    if (folder / "interactions.parquet").exists():
        about = "KuaiRand-Pure, a real short-video log of two weeks (Gao et al. 2022)"
        table = read_event_table(folder / "interactions.parquet")
        videos = list(read_videos(folder / "videos.csv"))
        described = folder / "users.csv"
        users = list(read_users(described)) if described.exists() else []
        rows, count = first_rows(table, limit)
        name, events, last_ms = FOLDER, table.interactions(0, count), int(table.at_ms[count - 1])
    else:
        where = f"{folder} is not there" if data else "set HEADRACE_DATA to replay a real log"
        about = f"a made-up audience of {SIMULATED_USERS:,} users, seed {seed} ({where})"
        audience = Audience(seed, SIMULATED_USERS, SIMULATED_VIDEOS)
        videos, rows, count, last_ms = audience.videos(), limit or SIMULATED_ROWS, 0, 0
        users = []
        for event in _cut(audience, rows):  # once for its length and its end, and again to be sent
            count, last_ms = count + 1, event.at_ms
        name, events = "simulated", _cut(audience, rows)
    by_ms = now_ms - last_ms
    moved = [(video_id, _move_video(video, by_ms)) for video_id, video in videos]
    return DemoSource(name, about, moved, move(events, by_ms), count, rows, users)


def first_rows(table: EventTable, limit: int | None) -> tuple[int, int]:
    """Rows that are taken, and how many events they are."""
    begins = np.flatnonzero(table.codes == event_code(FIRST_OF_ROW))
    if limit is None or limit >= len(begins):
        return len(begins), len(table)
    return limit, int(begins[limit])


def move(events: Iterable[Interaction], by_ms: int) -> Iterator[Interaction]:
    """Yield the events `by_ms` milliseconds later."""
    for event in events:
        yield replace(event, at_ms=event.at_ms + by_ms)


def _move_video(video: Video, by_ms: int) -> Video:
    return video if video.published_ms is None else replace(video, published_ms=video.published_ms + by_ms)


def _cut(audience: Audience, rows: int) -> Iterator[Interaction]:
    begun = 0
    for event in audience.events(2**62):
        begun += event.event == FIRST_OF_ROW
        if begun > rows:
            return
        yield event
