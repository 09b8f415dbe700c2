"""Reading committed records of partitions that are assigned by hand, as all do here who look into a log beside the workers.

An address flows in, a consumer flows out. Always holds: it joins no group and commits nothing; it says where a partition ends; a place
that the log does not hold is an error, never a silent jump.
"""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer

from infra.kafka_security import confluent_options


def committed_reader(bootstrap: str, group: str, more: Mapping[str, Any] | None = None) -> Consumer:
    """Make a consumer of committed records.

    Parameters
    ----------
    group : required by the client; only whose committed offsets can be looked up depends on it
    more : further properties of librdkafka
    """
    return Consumer(
        {
            **confluent_options(bootstrap),
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "log_level": 2,  # a broker that is away would fill the log; errors reach us as messages
            **(more or {}),
        }
    )
