"""What is checked before a shard goes on, with a broker of numbers."""

from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from agents.agreement import check_changelog, check_cut, check_fresh, check_store
from state.errors import CutOutOfRange, TopicReplaced
from state.rows import Cut
from state.store import MemoryStore

INPUTS, WRITTEN = ["videos", "interactions", "evidence"], ["evidence", "items"]
IDS = {"videos": "V", "interactions": "I", "evidence": "E", "items": "T", "users": "U"}


class Broker:
    """Ends of partitions and a group's offsets."""

    def __init__(self, committed: int = OFFSET_INVALID, **ends: tuple[int, int]) -> None:
        self._ends, self._committed = ends, committed

    def get_watermark_offsets(self, where: TopicPartition, **_: Any) -> tuple[int, int]:
        return self._ends.get(where.topic, (0, 100))

    def committed(self, places: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, self._committed) for place in places]


def check(cut: Cut, broker: Broker | None = None, ids: dict[str, str] = IDS) -> None:
    check_cut(broker or Broker(), INPUTS, WRITTEN, 0, cut, ids)  # type: ignore[arg-type] # answers as a consumer does


def test_what_fits_is_let_through() -> None:
    check(Cut({}))
    check(Cut({"interactions": 100, "evidence": 0}, topic_ids=IDS))
    # A log whose head was deleted before the shard began.
    check(Cut({}), Broker(interactions=(50, 100)))
    # A cut of a release that noted nothing, and a broker that has no ids.
    check(Cut({"interactions": 5}))
    check(Cut({"interactions": 5}, topic_ids=IDS), ids={})


@pytest.mark.parametrize("topic", ["interactions", "evidence", "items"])
def test_a_topic_created_anew_is_found_though_its_offsets_fit(topic: str) -> None:
    cut = Cut({"interactions": 5, "evidence": 5}, topic_ids=IDS)
    with pytest.raises(TopicReplaced, match=f"another topic {topic}.*HEADRACE_VERSION"):
        check(cut, ids={**IDS, topic: "new"})


def test_an_input_that_was_never_read_may_be_another() -> None:
    check(Cut({"interactions": 5}, topic_ids=IDS), ids={**IDS, "videos": "new"})


@pytest.mark.parametrize(
    ("due", "ends"),
    [
        ({"interactions": 101}, {}),
        ({"interactions": 49}, {"interactions": (50, 100)}),
        # Blocks that expired before the shard ever met one.
        ({"interactions": 5}, {"evidence": (1, 100)}),
    ],
)
def test_a_cut_outside_the_log_is_refused(due: dict[str, int], ends: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(CutOutOfRange, match="HEADRACE_VERSION"):
        check(Cut(due, topic_ids=IDS), Broker(OFFSET_INVALID, **ends))


@pytest.mark.parametrize(("start", "low", "high"), [(0, 0, 0), (0, 0, 9), (9, 0, 9), (5, 5, 9)])
def test_a_changelog_that_holds_what_is_missing(start: int, low: int, high: int) -> None:
    check_changelog("items[0]", start, low, high)


@pytest.mark.parametrize(("start", "low", "high"), [(10, 0, 9), (0, 1, 9), (4, 5, 9)])
def test_a_changelog_that_does_not_is_refused(start: int, low: int, high: int) -> None:
    with pytest.raises(CutOutOfRange, match="HEADRACE_VERSION"):
        check_changelog("items[0]", start, low, high)


def test_a_store_keeps_to_its_topic() -> None:
    store = MemoryStore()
    check_store(store, "users", 0, IDS)
    assert store.topic_id() == "U"
    # Still empty: it may become that of any topic.
    check_store(store, "users", 0, {"users": "W"})
    store.write([(b"u:a", b"1")], 3)
    check_store(store, "users", 0, {"users": "W"})
    check_store(store, "users", 0, {})
    with pytest.raises(TopicReplaced, match=r"HEADRACE_HOME.*HEADRACE_VERSION"):
        check_store(store, "users", 0, IDS)


def test_a_store_of_a_release_that_noted_nothing_is_taken_at_its_word() -> None:
    store = MemoryStore()
    store.write([(b"u:a", b"1")], 3)
    check_store(store, "users", 0, IDS)
    assert store.topic_id() == "U"


def test_a_shard_without_a_cut_must_be_new() -> None:
    empty, full = MemoryStore(), MemoryStore()
    full.write([(b"i:a", b"1")], 3)
    check_fresh(Broker(), INPUTS, "users", 0, empty)  # type: ignore[arg-type] # as above
    for broker, items in ((Broker(), full), (Broker(committed=0), empty)):
        with pytest.raises(TopicReplaced, match=r"learned before.*HEADRACE_VERSION"):
            check_fresh(broker, INPUTS, "users", 0, items)  # type: ignore[arg-type] # as above
