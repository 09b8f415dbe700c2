"""Ends of many partitions as of one moment at which no transaction was open in any of them.

A checkpoint becomes visible partition by partition, as its markers are written; so ends that are asked for one after the other may
have half of it. But where the end of what is committed is, of every partition, the same as the end of all there is, asked for later,
then nothing was open or written in any of them between the two answers: what is before these ends was there then, as a whole.
"""

import time
from collections.abc import Sequence

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from infra.kafka_security import confluent_options
from topics.specs import TopicsUnavailable, quiet_log

ANSWER_TIMEOUT_S = 20.0
#: A worker has a transaction open for a tenth of the time or so; a dead one's is aborted after 10 s.
QUIET_TIMEOUT_S = 60.0
#: Between two looks, so that a busy broker is not asked all the time.
PAUSE_S = 0.005
#: A partition that has just been made, or whose broker has just gone, has its leader in a moment.
_MOVING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})

Ends = dict[tuple[str, int], int]


class NeverQuiet(TopicsUnavailable):
    """A transaction was open in some partition at every look."""


def quiet_ends(bootstrap: str, topics: Sequence[str], partitions: int, timeout_s: float = QUIET_TIMEOUT_S) -> Ends:
    """Next offset of each partition of the topics, all as of one moment between two transactions.

    Raises
    ------
    NeverQuiet
        There was no such moment in time.
    TopicsUnavailable
        The brokers did not answer, or know no such topic.
    """
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    places = [(topic, partition) for topic in topics for partition in range(partitions)]
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                committed = _ends(admin, places, IsolationLevel.READ_COMMITTED)
                # Only when all answers are there: the moment lies between the last of them and the first of these.
                if _ends(admin, places, IsolationLevel.READ_UNCOMMITTED) == committed:
                    return committed
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise NeverQuiet(
                    f"Kafka at {bootstrap}: at every look in {timeout_s:.0f} s a worker was writing a checkpoint: try again when "
                    "less arrives"
                )
            time.sleep(PAUSE_S)
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error


def _ends(admin: AdminClient, places: Sequence[tuple[str, int]], isolation: IsolationLevel) -> Ends:
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call] # the client's type hints lack it
    asked = {TopicPartition(*place): latest for place in places}
    futures = admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_TIMEOUT_S)
    return {(each.topic, each.partition): future.result().offset for each, future in futures.items()}
