"""What a source's pulls have left in Kafka, as readers of committed records see it, in topics of one test alone."""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

from cli.committed import read_committed
from ingestion.source import Kind
from ingestion.sources.batch import Source
from ingestion.sources.positions import positions_spec
from ingestion.sources.pull import Pull
from ingestion.sources.rows import RowReader
from topics.catalog import Video, decode_video_value
from topics.dead_letter import DeadLetter, parse_dead_letter
from topics.interactions import Interaction, decode_value
from topics.specs import TopicSpec, ensure_topics

PARTITIONS = 2


@dataclass
class Log:
    """A broker shared by all tests, and an app of this one's own."""

    bootstrap: str
    app: str = field(default_factory=lambda: f"app{uuid.uuid4().hex[:12]}")
    name: str = "shop"

    def __post_init__(self) -> None:
        topics = [TopicSpec(self.topic(kind), PARTITIONS) for kind in Kind]
        ensure_topics(self.bootstrap, [*topics, TopicSpec(f"{self.app}-dead", 1), positions_spec(self.app)])

    def topic(self, kind: Kind) -> str:
        """Where its records go."""
        return f"{self.app}-{kind}"

    def pull(
        self, kind: Kind, *, columns: dict[str, str] | None = None, deleted: str | None = "deleted", **how: Any
    ) -> Pull:
        """A pull of this test's source."""
        left_out = ("changed", "updated_at", "id")
        topic = self.topic(kind)
        reader = RowReader(self.name, kind, columns=columns, deleted=deleted, left_out=left_out, topic=topic)
        return Pull(self.bootstrap, self.app, self.name, reader, dead_topic=f"{self.app}-dead", **how)

    def videos(self) -> list[tuple[str, Video | None]]:
        """What was sent of videos, in the order of each partition."""
        return [
            (key.decode(), None if value is None else decode_video_value(value))
            for key, value in self._records(Kind.VIDEOS)
        ]

    def catalogue(self) -> dict[str, Video]:
        """Videos that are there in the end."""
        return {key: video for key, video in dict(self.videos()).items() if video is not None}

    def events(self) -> list[Interaction]:
        """Events that were sent."""
        return [decode_value(value or b"") for _, value in self._records(Kind.EVENTS)]

    def counts(self, kind: Kind = Kind.VIDEOS) -> Counter[str]:
        """Records by key."""
        return Counter(key.decode() for key, _ in self._records(kind))

    def dead(self) -> list[DeadLetter]:
        """Rows that were refused."""
        return [
            parse_dead_letter(record.key(), record.value(), cast("list[tuple[str, bytes | None]]", record.headers()))
            for record in read_committed(self.bootstrap, f"{self.app}-dead")
        ]

    def _records(self, kind: Kind) -> list[tuple[bytes, bytes | None]]:
        return [(record.key() or b"", record.value()) for record in read_committed(self.bootstrap, self.topic(kind))]


def once(pull: Pull, source: Source) -> Any:
    """Pull once, and close the source."""
    try:
        return pull.once(source)
    finally:
        source.close()
