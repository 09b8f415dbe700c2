"""A range of a partition becomes a file, once, whoever dies or competes on the way.

1. Claim the range: a small file, named by the offset at which the range begins, that only one writer can create.
2. Publish the rows that are refused, if any are, under the range's name.
3. Publish the rows. The range is in the lake from here on: the next one begins behind it.

A crash before 1 leaves nothing. After 1 or 2 the claim says which range it was: whoever writes next fills exactly that one, with the
same names and rows, so it does not matter who comes last. Claims of the latest ranges stay, so that a writer that slept meanwhile
finds its place taken; the others are removed.
"""

from collections import deque
from collections.abc import Sequence

import structlog

from ingestion.lake.errors import LakeError
from ingestion.lake.files import LakeFile, hour_of, refused_dataset
from ingestion.lake.store import Claim, Lake, Place
from ingestion.lake.tables import Judge, Meta, Taken, tables_of, write_table

log = structlog.get_logger(__name__)

#: Claims of each partition that stay: a writer that was away for longer than so many files take must not come back.
CLAIMS = 100


class Writer:
    """Writes ranges.

    Parameters
    ----------
    lake : where to
    judge : what is refused
    topic_ids : Kafka's ids, by topic

    Attributes
    ----------
    rows, refused, files : that were written
    """

    def __init__(self, lake: Lake, judge: Judge, topic_ids: dict[str, str]) -> None:
        self._lake, self._judge, self._topic_ids = lake, judge, topic_ids
        self._kept = {place: deque(firsts) for place, firsts in lake.claims().items()}
        self._before = {place: frozenset(firsts) for place, firsts in self._kept.items()}
        self.rows = self.refused = self.files = 0

    def begun(self, place: Place, first: int) -> int | None:
        """Last offset of the range that somebody has begun at `first`; None if nobody has, as far as it was known at the start."""
        return self._lake.read_claim(place, first).last if first in self._before.get(place, ()) else None

    def known_ids(self) -> dict[str, str]:
        """Kafka's ids of the topics that the latest ranges were of, by topic; none where it gave none."""
        claims = {topic: self._lake.read_claim((topic, p), kept[-1]) for (topic, p), kept in self._kept.items() if kept}
        return {topic: claim.topic_id for topic, claim in claims.items() if claim.topic_id}

    def write(self, place: Place, first: int, records: Sequence[Taken]) -> LakeFile:
        """Write a range that begins at `first` and ends with the last of the records, which all arrived in one hour.

        Raises
        ------
        LakeTaken
            Another writer has begun a range there since this one started.
        """
        topic, partition = place
        if first in self._before.get(place, ()):
            claim = self._lake.read_claim(place, first)
            # Whoever began it may have had other settings, and refused what is a row now.
            begun = claim.file(topic, partition, first)
            self._lake.folder.remove(begun._replace(dataset=refused_dataset(topic)).path)
        else:
            date, hour = hour_of(records[-1].timestamp)
            claim = Claim(records[-1].offset, date, hour, self._topic_ids.get(topic, ""))
            self._lake.claim(place, first, claim)  # 1
            self._kept.setdefault(place, deque()).append(first)
        file = claim.file(topic, partition, first)
        self._require(topic, claim, file)
        meta = Meta(topic, claim.topic_id)
        rows, refused = tables_of(topic, partition, records, self._judge)
        with self._lake.folder.workspace("run") as work:
            path = work / "part"
            if refused is not None:
                write_table(path, refused, meta)
                self._lake.folder.publish(path, file._replace(dataset=refused_dataset(topic)).path, anew=True)  # 2
                path.unlink(missing_ok=True)
            write_table(path, rows, meta)
            self._lake.folder.publish(path, file.path, anew=True)  # 3
            path.unlink(missing_ok=True)
        self._forget_old(place)
        self.rows += len(rows)
        self.refused += 0 if refused is None else len(refused)
        self.files += 1
        log.info("written", file=file.path, rows=len(rows), refused=0 if refused is None else len(refused))
        return file

    def _forget_old(self, place: Place) -> None:
        kept = self._kept.get(place, deque())
        while len(kept) > CLAIMS:
            self._lake.unclaim(place, kept.popleft())

    def _require(self, topic: str, claim: Claim, file: LakeFile) -> None:
        known = self._topic_ids.get(topic, "")
        if claim.topic_id and known and claim.topic_id != known:
            raise LakeError(
                f"{self._lake.folder.where(file.path)} was begun from another topic {topic} than the one that is there now: name a new"
                " lake in HEADRACE_LAKE"
            )
