"""Whether a shard's logs and stores belong together: what is checked before a worker goes on from them.

Flows in: a store, a cut, and what the broker says of the topics. Flows out: nothing, or a StateError that names the way out.
Always holds: a topic that was wiped, expired or created anew under a state that was learned from it is found here.
"""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from state.errors import CutOutOfRange, TopicReplaced
from state.rows import Cut
from state.store import Store

#: How long a broker may take to answer a question, in seconds.
ANSWER_TIMEOUT_S = 20.0
REPLAY = "Replay what is left into a new HEADRACE_VERSION"


def check_store(store: Store, topic: str, partition: int, ids: Mapping[str, str]) -> None:
    """See that `store` was written from this very topic, and note the topic in a store that is empty.

    Parameters
    ----------
    ids : Kafka's id of each topic; a topic without one cannot be checked

    Raises
    ------
    TopicReplaced
        The store holds rows of another topic of the same name.
    """
    topic_id, noted = ids.get(topic), store.topic_id()
    if topic_id is None or topic_id == noted:
        return
    # A store of a release that noted nothing is taken at its word.
    if noted and store.offset() > 0:
        raise TopicReplaced(
            f"{topic}[{partition}] is not the topic that the store on this disk was written from: it was wiped and created"
            " anew, or HEADRACE_HOME was used with another broker or HEADRACE_APP. Set a HEADRACE_HOME of its own for each."
            f" If the topic was wiped: {REPLAY}"
        )
    store.note_topic(topic_id)


def check_changelog(name: str, start: int, low: int, high: int) -> None:
    """See that the changelog holds what a store that ends at `start` lacks. Raises CutOutOfRange.

    Parameters
    ----------
    name : the changelog and partition, for messages
    start : offset of the first record that is not in the store; 0 for an empty one
    low, high : first and next offset of the changelog
    """
    if start > high:
        raise CutOutOfRange(
            f"{name} ends at {high}, but the store on this disk holds it up to {start}: records were lost or it was wiped."
            f" {REPLAY}"
        )
    if start < low:
        raise CutOutOfRange(
            f"{name} begins at {low}, but the store on this disk ends at {start}: what was between was deleted from a topic"
            f" that is to be compacted only. {REPLAY}"
        )


def check_cut(
    consumer: Consumer,
    inputs: Sequence[str],
    written: Sequence[str],
    partition: int,
    cut: Cut,
    ids: Mapping[str, str],
) -> None:
    """See that every input still holds the place where the shard goes on, and that it is still the same topic.

    Parameters
    ----------
    consumer : any; asked for the ends of partitions
    inputs : topics that the shard reads
    written : topics of this version alone, which hold all that the shard has written, or wait for it, from offset 0

    Raises
    ------
    CutOutOfRange, TopicReplaced
    """
    for topic in (*inputs, *written):
        noted, found = cut.topic_ids.get(topic), ids.get(topic)
        if noted and found and noted != found and (topic in written or cut.next.get(topic)):
            raise TopicReplaced(
                f"shard {partition} was learned with another topic {topic}: it was wiped and created anew. {REPLAY}"
            )
    for topic in inputs:
        due = cut.next.get(topic, 0 if topic in written else None)
        if due is None:
            continue
        if topic in written and cut.lists is not None:
            due = min(due, cut.lists)
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
        if not low <= due <= high:
            raise CutOutOfRange(
                f"shard {partition} goes on at {topic}[{partition}] offset {due}, but the log holds {low} to {high}: it was"
                f" wiped or has expired. {REPLAY}"
            )


def forget_expired(consumer: Consumer, topic: str, partition: int, cut: Cut, ids: Mapping[str, str]) -> None:
    """Let the shard go on at the begin of an input that need not be whole, where its place in the cut is not in the log.

    Parameters
    ----------
    topic : one whose records expire, and of which none is missed
    """
    due, noted = cut.next.get(topic), cut.topic_ids.get(topic)
    if due is None:
        return
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
    if not low <= due <= high or (noted and ids.get(topic) and noted != ids.get(topic)):
        del cut.next[topic]


def check_fresh(consumer: Consumer, inputs: Sequence[str], users_changelog: str, partition: int, items: Store) -> None:
    """See that a shard without a cut has indeed never learned: without its cut, it would learn everything twice.

    Parameters
    ----------
    consumer : of the version's own group; the copy of the cut in its offsets tells, too
    items : the shard's store of videos, brought up to its changelog

    Raises
    ------
    TopicReplaced
        There is a trace of former learning.
    """
    places = [TopicPartition(topic, partition) for topic in inputs]
    known = [place for place in consumer.committed(places, timeout=ANSWER_TIMEOUT_S) if place.offset >= 0]
    if items.offset() > 0 or known:
        raise TopicReplaced(
            f"{users_changelog}[{partition}] holds no cut, though shard {partition} has learned before: the topic was wiped."
            f" {REPLAY}"
        )
