"""The log that the notebooks look at: KuaiRand-Pure where it is at hand, else a made-up audience.

`HEADRACE_DATA` names the folder of the data sets; `NOTEBOOK_ROWS`, if set, takes the first so many events only, which makes a notebook
quick and its plots rough.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.logs import LOGS, data_folder, first_of
from ingestion.bad_file import BadRow
from ingestion.event_table import EventTable, build_event_table
from ingestion.simulate import Audience
from state.types import BoolArray
from topics.catalog import User, Video
from topics.interactions import Interaction, event_code

#: Of the made-up audience, which has no end of its own.
SIMULATED_EVENTS = 150_000
SIMULATED_USERS, SIMULATED_VIDEOS = 1_500, 2_000


@dataclass(frozen=True)
class NotebookLog:
    """Events by time, which of them are positive, and what is known of videos and users."""

    name: str
    table: EventTable
    positive: BoolArray
    videos: Sequence[tuple[str, Video]]
    users: Sequence[tuple[str, User]]


def load(rows: int | None = None, seed: int = 1) -> NotebookLog:
    """Read the real log, or make one up.

    Parameters
    ----------
    rows : events that are taken at most; `NOTEBOOK_ROWS`, if it is set, comes first
    seed : of the made-up audience
    """
    rows = int(os.environ.get("NOTEBOOK_ROWS", rows or 0)) or None
    log, folder = LOGS["kuairand"], data_folder()
    if log.missing(folder):
        audience = Audience(seed, SIMULATED_USERS, SIMULATED_VIDEOS)
        table = table_of(list(islice(audience.events(2**62), rows or SIMULATED_EVENTS)))
        return NotebookLog("a made-up audience", table, table.positive(), list(audience.videos()), [])
    read = log.read(folder)
    table = read.table if rows is None or rows >= len(read.table) else first_of(read.table, rows / len(read.table))
    return NotebookLog("KuaiRand-Pure", table, table.positive(log.positive), read.videos, read.users)


def table_of(events: Sequence[Interaction]) -> EventTable:
    """Events as a table."""

    def seconds(name: str) -> list[float]:
        values = [getattr(event, name) for event in events]
        return [float("nan") if value is None else value for value in values]

    return build_event_table(
        event_ids=pa.array([event.event_id for event in events]),
        user_ids=pa.array([event.user_id for event in events]),
        video_ids=pa.array([event.video_id for event in events]),
        codes=np.array([event_code(event.event) for event in events], np.uint8),
        at_ms=np.array([event.at_ms for event in events], np.int64),
        watch_seconds=np.array(seconds("watch_seconds")),
        duration_seconds=np.array(seconds("duration_seconds")),
        rows=len(events),
        bad_row=lambda row, why: BadRow(Path("events"), row, why),
    )
