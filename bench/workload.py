"""The log that all contenders read: a made-up audience's events, keyed by user over four partitions, lz4-compressed.

Seeded: the same events on every machine. What a stranger to them should know is their mix, for an impression costs a learner less
than a like: `Workload.positives_share`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from ingestion.source import read_event_table, sniff
from topics import specs as topics
from topics.catalog import Video
from topics.interactions import Interaction
from topics.signals import is_positive

PARTITIONS = 4
USERS = 20_000
VIDEOS = 5_000
SEED = 1


@dataclass(frozen=True)
class Workload:
    """What is in the log.

    Attributes
    ----------
    positives_share : of the events: likes, shares, comments, follows and long watches, repeated ones too
    """

    source: str
    events: int
    positives_share: float
    value_bytes: float


def load(bootstrap: str, events: int, file: Path | None = None) -> Workload:
    """Create the shared topics and fill them.

    Parameters
    ----------
    events : how many at most
    file : of events, in any format that `headrace ingest` reads; by default a simulated audience and its catalogue
    """
    shared = [
        spec
        for spec in topics.specs("", "", PARTITIONS)
        if spec.name in (topics.INTERACTIONS, topics.DEAD, topics.VIDEOS, topics.USERS)
    ]
    topics.ensure_topics(bootstrap, shared)
    videos: Iterable[tuple[str, Video]] = ()
    if file is None:
        audience = Audience(SEED, USERS, VIDEOS)
        source = f"simulated audience, seed {SEED}, {USERS} users, {VIDEOS} videos"
        videos, stream = audience.videos(), audience.events(events)
    else:
        found = sniff(file)
        source = f"{file.name} ({found.format})"
        stream = islice(read_event_table(found.path, found.format).interactions(), events)
    produce_videos(bootstrap, videos)
    positives = 0

    def counted() -> Iterator[Interaction]:
        nonlocal positives
        for event in stream:
            positives += is_positive(event.event, event.watch_seconds, event.duration_seconds)
            yield event

    done = produce_events(bootstrap, counted())
    return Workload(source, done.records, positives / done.records, done.value_bytes / done.records)
