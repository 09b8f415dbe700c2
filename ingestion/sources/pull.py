"""Pulling a source: from where it was left to what is there now, once or for as long as one wants.

    1. Start the producer: whoever pulled under this name before is fenced, and what they had open is decided.
    2. Only then read the stored positions.
    3. For each batch: rows to records, bad ones to dead letters; commit them with the positions behind them.
    4. With `compare`: what is in the topic from this source, and no longer in it, gets a tombstone.

A kill before the commit of step 3 leaves nothing of the batch and the position before it; after it, all of it and the position behind
it. Bad rows go to `interactions.dead` with their reason, as `source:NAME`, and are counted.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from ingestion.source import Kind
from ingestion.sources.batch import Positions, Row, Source, SourceError, SourceUnavailable, Unreadable
from ingestion.sources.cells import plain
from ingestion.sources.entries import KnownEntries
from ingestion.sources.positions import (
    Stored,
    Summary,
    Totals,
    encode_positions,
    positions_topic,
    read_positions,
)
from ingestion.sources.rows import Record, RowReader
from ingestion.sources.writer import Writer
from topics.dead_letter import DeadLetter, dead_letter
from topics.rejected import Rejected
from topics.specs import DEAD

log = structlog.get_logger(__name__)

#: Tombstones of one transaction.
_TOMBSTONES: Final = 1_000
#: First and longest wait after a source or Kafka has not answered.
_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 60.0

OnProgress = Callable[[Totals], None]


class TooManyGone(SourceError):
    """So much is gone from a source that it may rather be broken than empty."""


@dataclass(frozen=True)
class Pull:
    """What is pulled, and how.

    Attributes
    ----------
    name : of the source; its positions and event ids have it
    reader : makes records of its rows
    compare : videos and users that this source has sent and no longer has are deleted
    unchanged : send also what the topic has already; without it a catalogue is compared with the topic
    full : read the source from its beginning each time
    most_gone : share of what this source has sent that may be gone at once
    dead_topic : where refused rows go
    """

    bootstrap: str
    app: str
    name: str
    reader: RowReader
    compare: bool = False
    unchanged: bool = True
    full: bool = False
    most_gone: float = 0.5
    dead_topic: str = DEAD

    def once(self, source: Source, progress: OnProgress | None = None) -> Totals:
        """Pull what is there now; returns what this call has sent.

        Raises
        ------
        SourceError, SourceUnavailable, TopicsUnavailable
            What was committed until then stays, and its positions with it.
        """
        with self._session(source, progress or (lambda _: None)) as session:
            session.run()
            return session.sent

    def follow(self, source: Source, every_s: float, progress: OnProgress | None = None) -> None:
        """Pull for ever; a source or a Kafka that does not answer is waited for. Raises SourceError for what waiting cannot mend."""
        wait_s = _RETRY_S
        before = Totals()

        def seen(sent: Totals) -> None:
            if progress is not None:
                progress(before.plus(sent))

        while True:
            session: _Session | None = None
            try:
                with self._session(source, seen) as session:
                    while True:
                        session.run()
                        wait_s = _RETRY_S
                        source.wait(every_s)
            except (SourceUnavailable, ConnectionError) as error:
                log.warning("source.waiting", source=self.name, why=str(error), seconds=wait_s)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_RETRY_S)
            finally:
                before = before.plus(session.sent) if session is not None else before

    @contextlib.contextmanager
    def _session(self, source: Source, progress: OnProgress) -> Iterator["_Session"]:
        writer = Writer(self.bootstrap, self.app, self.name)
        known: KnownEntries | None = None
        try:
            writer.start()
            stored = read_positions(self.bootstrap, self.app).get(self.name, Stored())
            identity = dict(source.identity) | {"kind": str(self.reader.kind)}
            if stored.summary is not None and stored.summary.identity != identity:
                raise SourceError(
                    f"the stored position of {self.name!r} belongs to {_shown(stored.summary.identity)}, not to "
                    f"{_shown(identity)}: give this source another name, or `headrace pull forget {self.name}` to read it from "
                    "its beginning"
                )
            if self.reader.kind != Kind.EVENTS and (self.compare or not self.unchanged):
                known = KnownEntries(self.bootstrap, self.reader.topic, self.name)
            yield _Session(self, source, writer, stored, identity, known, progress)
        finally:
            writer.close()
            if known is not None:
                known.close()


class _Session:
    """From a started producer on to its end."""

    def __init__(
        self,
        pull: Pull,
        source: Source,
        writer: Writer,
        stored: Stored,
        identity: dict[str, str],
        known: KnownEntries | None,
        progress: OnProgress,
    ) -> None:
        self._pull, self._source, self._writer, self._known, self._progress = pull, source, writer, known, progress
        self._positions: Positions = dict(stored.positions)
        self._identity = identity
        self._before = stored.summary.totals if stored.summary is not None else Totals()
        self.sent = Totals()

    def run(self) -> None:
        """Pull what is new."""
        if self._known is not None:
            self._known.refresh()
        for batch in self._source.batches({} if self._pull.full else dict(self._positions)):
            records: list[Record] = []
            letters: list[DeadLetter] = []
            for row in batch.rows:
                try:
                    record = self._record(row)
                except Rejected as error:
                    letters.append(_letter(self._pull.name, row, error))
                else:
                    if record is not None:
                        records.append(record)
            self._commit(records, letters, {} if self._pull.full else dict(batch.positions))
        if self._pull.compare and self._known is not None:
            self._delete(self._known)

    def _record(self, row: Row | Unreadable) -> Record | None:
        if isinstance(row, Unreadable):
            raise row.why
        record = self._pull.reader.record(row)
        if record is None or self._known is None or self._pull.unchanged:
            return record
        return None if self._known.has(record.key, record.value) else record

    def _commit(self, records: Sequence[Record], letters: Sequence[DeadLetter], positions: Positions) -> None:
        tombstones = sum(record.value is None for record in records)
        sent = self.sent.plus(Totals(len(records) - tombstones, tombstones, len(letters)))
        summary = Summary(self._identity, self._before.plus(sent))
        stored = encode_positions(self._pull.name, positions, summary)
        self._writer.write(
            records,
            letters,
            stored,
            positions_topic=positions_topic(self._pull.app),
            dead_topic=self._pull.dead_topic,
        )
        self.sent = sent
        if self._known is not None:
            self._known.note(records)
        for part, position in positions.items():
            if position is None:
                self._positions.pop(part, None)
            else:
                self._positions[part] = position
        self._progress(self.sent)

    def _delete(self, known: KnownEntries) -> None:
        """Tombstones for what this source has sent and no longer has."""
        # Before the keys are asked for: an entry that comes later is not among them, and none of those asked about.
        known.refresh()
        ours = list(known.ours())
        there = set()
        for row in self._source.present():
            with contextlib.suppress(Rejected):  # such a row has a dead letter, and no record that could be missing
                there.add(self._pull.reader.entry_id(row).encode())
        gone = [key for key in ours if key not in there]
        if len(gone) > max(self._pull.most_gone * len(ours), 1):
            raise TooManyGone(
                f"{len(gone)} of {len(ours)} {self._pull.reader.kind} of {self._pull.name!r} are gone from it: nothing was deleted."
                " If that is right, say --most-gone 1"
            )
        for first in range(0, len(gone), _TOMBSTONES):
            part = gone[first : first + _TOMBSTONES]
            self._commit([Record(self._pull.reader.topic, key, None) for key in part], [], {})


def _letter(name: str, row: Row | Unreadable, why: Rejected) -> DeadLetter:
    if isinstance(row, Unreadable):
        key, raw = row.place, row.raw
    else:
        key, raw = row.place or row.key, _encoded(row)
    return dead_letter(key.encode(errors="replace"), raw, why, topic=f"source:{name}", partition=-1, offset=-1)


def _encoded(row: Row) -> bytes:
    try:
        return msgspec.json.encode({str(column): plain(value) for column, value in row.values.items()})
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return repr(dict(row.values)).encode(errors="replace")


def _shown(identity: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(identity.items()))
