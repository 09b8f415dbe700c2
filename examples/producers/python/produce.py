"""Send events to Headrace through Kafka with confluent-kafka: one JSON object a line of standard input.

    pip install confluent-kafka
    python produce.py < events.jsonl

`KAFKA_BOOTSTRAP_SERVERS` names the brokers, `TOPIC` another topic than `interactions`. `event_id` and `at_ms` are filled in where they
are missing. Ends with status 1 if the brokers have not taken every event.
"""

import json
import os
import sys
import time
import uuid

from confluent_kafka import KafkaError, Message, Producer

TOPIC = os.environ.get("TOPIC", "interactions")
producer = Producer(
    {
        "bootstrap.servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"),
        # librdkafka's own default sends a user's events to another partition than Kafka's Java client: Headrace would refuse them.
        "partitioner": "murmur2_random",
        "enable.idempotence": True,  # sent again by the client, and yet in the log once and in order; implies acks=all
        "compression.type": "lz4",
    }
)
refused: list[str] = []


def told(error: KafkaError | None, message: Message) -> None:
    """Keep what was not taken."""
    if error is not None:
        refused.append(f"{message.key()!r}: {error.str()}")


def send(event: dict[str, object]) -> None:
    """Hand one event over; a full queue is waited for."""
    event = {"event_id": uuid.uuid4().hex, "at_ms": time.time_ns() // 1_000_000, **event}
    value = json.dumps(event, ensure_ascii=False).encode()
    while True:
        try:
            producer.produce(TOPIC, value, key=str(event["user_id"]).encode(), on_delivery=told)
            break
        except BufferError:
            producer.poll(0.1)
    producer.poll(0)


sent = 0
for line in sys.stdin:
    if line.strip():
        send(json.loads(line))
        sent += 1
left = producer.flush(30)
if left or refused:
    sys.exit(f"{left + len(refused)} of {sent} events were not taken: {'; '.join(refused[:3]) or 'no answer'}")
sys.stdout.write(f"{sent} events sent\n")
