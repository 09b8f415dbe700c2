"""The log as of a time or of offsets, as places at which whoever reads it stops.

Flows in: what a command was told, the bounds of the log, and how far another version has come. Flows out: next offsets. Always holds:
they are within the log, and never beyond that version: what it refused is known, and its dead letters are written.
"""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.kafka_security import confluent_options
from topics.canonical_log import StoppingPoint
from topics.groups import SHARED, Places
from topics.specs import TopicsUnavailable

ANSWER_TIMEOUT_S = 20.0


def places_at(bootstrap: str, stop: StoppingPoint, most: Places) -> Places:
    """Next offset of each partition of the shared topics at the stopping point; `most` bounds them.

    A time ends a partition before its first record that arrived later. Raises TopicsUnavailable.
    """
    found = {topic: dict(most[topic]) for topic in SHARED}
    for topic, places in (stop.places or {}).items():
        if topic in found:
            found[topic] = {each: min(end, places.get(each, 0)) for each, end in found[topic].items()}
    if stop.arrived_ms is None:
        return found
    consumer = Consumer(confluent_options(bootstrap) | {"group.id": "headrace-as-of", "log_level": 0})
    try:
        asked = [TopicPartition(topic, each, stop.arrived_ms + 1) for topic, ends in found.items() for each in ends]
        for place in consumer.offsets_for_times(asked, timeout=ANSWER_TIMEOUT_S):
            if place.error is not None:
                raise KafkaException(place.error)
            # Below 0: nothing has arrived later.
            if place.offset >= 0:
                found[place.topic][place.partition] = min(found[place.topic][place.partition], place.offset)
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return found
