"""What the demo replays: KuaiRand's two weeks where they are at hand, else a made-up audience.

A folder flows in; a catalogue and a stream of events in order of time flow out, cut after a number of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestion.simulate import Audience
from ingestion.source import read_event_table, read_videos
from topics.catalog import Video
from topics.interactions import Interaction

FOLDER = "kuairand-pure"
#: Where the data lies if HEADRACE_DATA does not say: beside the project.
BESIDE = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
#: Rows of the made-up audience, which has no end of its own: a minute or two.
SIMULATED_ROWS = 100_000
SIMULATED_USERS, SIMULATED_VIDEOS = 2_000, 2_000
#: A row of either source is one video shown to a user; it begins with this event.
FIRST_OF_ROW = "impression"


@dataclass(frozen=True)
class DemoSource:
    """Videos by id, and events; `events_expected` is their number, None where it is known only at the end."""

    name: str
    about: str
    videos: list[tuple[str, Video]]
    events: Iterator[Interaction]
    events_expected: int | None


class Rows:
    """Events of the first `limit` rows (None: of all), counting the rows that went through."""

    def __init__(self, events: Iterator[Interaction], limit: int | None) -> None:
        self._events, self._limit = events, limit
        self.count = 0

    def __iter__(self) -> Iterator[Interaction]:
        for event in self._events:
            if event.event == FIRST_OF_ROW:
                if self.count == self._limit:
                    return
                self.count += 1
            yield event


def open_source(data: Path | None, seed: int, limit: int | None) -> tuple[DemoSource, Rows]:
    """Read the log in `data` (None: beside the project), or make an audience up.

    Raises
    ------
    BadFile, BadRow
        The log is there and cannot be read.
    """
    folder = (data or BESIDE) / FOLDER
    if (folder / "interactions.parquet").exists():
        table = read_event_table(folder / "interactions.parquet")
        videos = list(read_videos(folder / "videos.csv"))
        source = DemoSource(
            FOLDER,
            f"KuaiRand-Pure, {table.rows:,} rows of a real short-video log (Gao et al. 2022)",
            videos,
            table.interactions(),
            len(table) if limit is None else None,
        )
    else:
        audience = Audience(seed, SIMULATED_USERS, SIMULATED_VIDEOS)
        limit = SIMULATED_ROWS if limit is None else limit
        where = f"{folder} is not there" if data else "set HEADRACE_DATA to replay a real log"
        source = DemoSource(
            "simulated",
            f"a made-up audience of {SIMULATED_USERS:,} users, seed {seed} ({where})",
            audience.videos(),
            audience.events(2**62),
            None,
        )
    return source, Rows(source.events, limit)
