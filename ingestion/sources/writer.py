"""The transactions of one source: records, dead letters and the positions behind them become visible together, or not at all.

Batches flow in, committed records flow out. Always holds: of two processes with one source's name only the one that began last
writes; what the other had open is gone before this one reads its positions.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from ingestion.sources.batch import SourceError, SourceUnavailable
from ingestion.sources.rows import Record
from topics.dead_letter import DeadLetter
from topics.specs import DEAD, producer_config

#: Of an open transaction whose producer has died: until then readers of committed records wait behind it. As long as a worker's.
TRANSACTION_TIMEOUT_S: Final = 10
#: For a broker that restarts, or elects a leader.
ANSWER_TIMEOUT_S: Final = 60.0
_CALL_S: Final = 5.0
#: Header of catalogue records: the source that wrote them.
SOURCE_HEADER: Final = "headrace.source"

Fields = Sequence[tuple[str, bytes]]


class SourceTaken(SourceError):
    """Another process pulls a source of this name."""


class WriteFailed(SourceUnavailable):
    """A batch is not in the log, and nothing of it is; the next run sends it again."""


class Writer:
    """A transactional producer.

    Parameters
    ----------
    bootstrap : broker addresses
    app, name : together they tell the source from all others
    """

    def __init__(self, bootstrap: str, app: str, name: str) -> None:
        self._bootstrap, self._name = bootstrap, name
        config: dict[str, Any] = producer_config(bootstrap) | {
            "transactional.id": f"{app}.source.{name}",
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_S * 1000,
        }
        self._producer = Producer(config, logger=_quiet())
        self._header: Fields = [(SOURCE_HEADER, name.encode())]

    def start(self) -> None:
        """Fence whoever pulled under this name, and wait until what they had open is decided."""
        self._until_done(self._producer.init_transactions)

    def write(
        self,
        records: Iterable[Record],
        letters: Iterable[DeadLetter],
        positions: Sequence[tuple[bytes, bytes | None]],
        *,
        positions_topic: str,
        dead_topic: str = DEAD,
    ) -> None:
        """Commit one batch.

        Raises
        ------
        SourceTaken
            Another process has taken over the name.
        WriteFailed
            Nothing of the batch is in the log.
        """
        try:
            self._producer.begin_transaction()
            for record in records:
                self._send(record.topic, record.key, record.value, self._header)
            for letter in letters:
                self._send(dead_topic, letter.key, letter.value, letter.headers)
            for key, value in positions:
                self._send(positions_topic, key, value, None)
        except KafkaException as error:
            self._failed(error.args[0])
        self.commit()

    def commit(self) -> None:
        """Commit what was sent. Raises as `write`."""
        self._until_done(self._producer.commit_transaction)

    def close(self) -> None:
        """Take back what is open."""
        self._producer.purge()

    def _send(self, topic: str, key: bytes | None, value: bytes | None, headers: Fields | None) -> None:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                # A delivery that fails fails the commit.
                self._producer.produce(topic, value, key, headers=list(headers or ()))
                return
            except BufferError:
                self._producer.poll(0.1)
                if time.monotonic() > deadline:
                    raise WriteFailed(f"Kafka at {self._bootstrap} took nothing for {ANSWER_TIMEOUT_S:.0f} s") from None

    def _until_done(self, call: Callable[[float], Any]) -> None:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                call(_CALL_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    self._failed(error.args[0])

    def _failed(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
            raise SourceTaken(
                f"another process has begun to pull {self._name!r}: this one ends. One is enough; give sources names of their own"
            ) from None
        if error.txn_requires_abort():
            try:
                self._producer.abort_transaction(_CALL_S)
            except KafkaException as second:
                error = second.args[0]
        raise WriteFailed(f"Kafka at {self._bootstrap}: {error.str()}. Nothing of the last batch was written") from None


def _quiet() -> logging.Logger:
    """What a producer logs on its own is in the errors that it gives."""
    logger = logging.getLogger("headrace.sources.producer")
    logger.setLevel(logging.CRITICAL)
    return logger
