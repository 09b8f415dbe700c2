"""What every agent does with the records of a shard's input, whatever they hold.

Always holds: a record that the state holds already is passed over, and one that cannot be used becomes a dead letter.
"""

from collections.abc import Sequence

from state.shard import Shard
from topics.dead_letter import dead_letter
from topics.record_batch import RecordBatch, RecordLike
from topics.rejected import Rejected


def due(shard: Shard, topic: str, records: Sequence[RecordLike]) -> RecordBatch:
    """Records that the state does not hold yet (step 4 of the protocol)."""
    return RecordBatch.of(records).since(shard.next.get(topic, 0))


def took(shard: Shard, topic: str, records: Sequence[RecordLike]) -> None:
    """Say that the records are in the state: called last, when all that they change is changed."""
    if records:
        shard.advance(topic, max(shard.next.get(topic, 0) - 1, records[-1].offset))


def bury(shard: Shard, topic: str, record: RecordLike, why: Rejected) -> None:
    """Send the record to the dead letters with the next checkpoint, unless another version of the state has done so."""
    if record.offset < shard.judged.get(topic, 0):
        return
    shard.dead.append(
        dead_letter(record.key, record.value, why, topic=topic, partition=shard.partition, offset=record.offset)
    )
