"""Which topic is behind a name: the id that Kafka draws when it creates one (KIP-516).

A topic that is deleted and created again has the same name and other records; only the id tells.
"""

from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from infra.kafka_security import confluent_options
from topics.specs import TopicsUnavailable, quiet_log

#: What a broker without topic ids answers.
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def topic_ids(bootstrap: str, names: Sequence[str], timeout_s: float = 20.0) -> dict[str, str]:
    """Id of each topic; topics of a broker that gives none (before Kafka 2.8) are left out.

    Raises
    ------
    TopicsUnavailable
        The brokers did not answer, or know no such topic.
    """
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    try:
        answers = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        ids = {name: str(answer.result().topic_id) for name, answer in answers.items()}
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    return {name: topic_id for name, topic_id in ids.items() if topic_id.rstrip("=") != NO_ID}
