"""The real logs that benchmarks measure on, read in place.

Flows in: the folder of the data sets. Flows out: events by time, the catalogue, and what is positive. Always holds: nothing of a
log is copied, and one that is not there is an error that says where it was looked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cli.demo_source import BESIDE
from infra.settings import Settings
from ingestion.event_table import EventTable
from ingestion.source import read_event_table, read_users, read_videos
from state.types import BoolArray
from topics.catalog import User, Video


class LogMissing(FileNotFoundError):
    """A file of a log is not there; the message says which, and how to name the folder that has it."""


class Read(NamedTuple):
    """A log in memory; `positive` is bool, shape (events,), `users` what is known of them beside events."""

    table: EventTable
    videos: list[tuple[str, Video]]
    positive: BoolArray
    users: list[tuple[str, User]] = []  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class Log:
    """Files of a log within the folder of the data sets, and the rule for what is positive in it."""

    name: str
    events: str
    videos: str
    positive: str
    users: str | None = None

    def missing(self, folder: Path) -> str:
        """What is not there, and what to do; empty where all is."""
        for name in (self.events, self.videos, self.users):
            if name is not None and not (folder / name).exists():
                return f"no {name} in {folder}: set HEADRACE_DATA to the folder of the data sets"
        return ""

    def read(self, folder: Path, share: float = 1.0) -> Read:
        """Read the log, or its first part.

        Parameters
        ----------
        share : of the events, the first; cut where the time changes, so that no row of the log is cut in two

        Raises
        ------
        LogMissing
        """
        if why := self.missing(folder):
            raise LogMissing(why)
        table = read_event_table(folder / self.events)
        if share < 1.0:
            table = first_of(table, share)
        users = [] if self.users is None else list(read_users(folder / self.users))
        return Read(table, list(read_videos(folder / self.videos)), table.positive(self.positive), users)


#: What is reported of each is frozen: other rules would make other targets.
LOGS = {
    log.name: log
    for log in (
        Log(
            "kuairand",
            "kuairand-pure/interactions.parquet",
            "kuairand-pure/videos.csv",
            "long_view",
            "kuairand-pure/users.csv",
        ),
        Log("ml-latest-small", "ml-latest-small/ratings.csv", "ml-latest-small/movies.csv", "rating>=4"),
    )
}


def data_folder() -> Path:
    """Where the data sets are: in `HEADRACE_DATA`, else beside the project."""
    return Settings().data or BESIDE


def first_of(table: EventTable, share: float) -> EventTable:
    """The first so many-th part of a table."""
    end = int(np.searchsorted(table.at_ms, table.at_ms[min(int(share * len(table)), len(table) - 1)]))
    taken = pa.array(np.arange(end))
    return EventTable(
        table.event_ids.take(taken),
        table.user_ids.take(taken),
        table.video_ids.take(taken),
        table.codes[:end],
        table.at_ms[:end],
        table.watch_seconds[:end],
        table.duration_seconds[:end],
        {name: label[:end] for name, label in table.labels.items()},
        table.rows,
    )
