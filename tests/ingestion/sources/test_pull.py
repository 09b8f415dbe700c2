"""Pulls of one name: only the last to begin writes; and one that follows outlives a source that fails for a while."""

import json
from typing import Any

import pytest

from ingestion.source import Kind
from ingestion.sources.feed import CatalogueFeed
from ingestion.sources.feed_client import FeedClient
from ingestion.sources.feed_items import ItemReader
from ingestion.sources.positions import Totals, encode_positions, positions_topic, read_positions
from ingestion.sources.rows import Record
from ingestion.sources.writer import SourceTaken, Writer
from tests.ingestion.sources.feed_server import feed_server, status
from tests.ingestion.sources.log import Log

pytestmark = pytest.mark.broker


def test_of_two_with_one_name_the_first_is_fenced(log: Log) -> None:
    def write(writer: Writer, place: int) -> None:
        record = Record(log.topic(Kind.VIDEOS), str(place).encode(), b"{}")
        positions = encode_positions("shop", {"": place}, None)
        writer.write([record], [], positions, positions_topic=positions_topic(log.app))

    first, second, other = (Writer(log.bootstrap, log.app, name) for name in ("shop", "shop", "another"))
    first.start()
    write(first, 1)
    second.start()
    other.start()
    with pytest.raises(SourceTaken, match="'shop'"):
        write(first, 2)
    write(second, 3)
    write(other, 4)
    assert log.counts() == {"1": 1, "3": 1, "4": 1}
    assert read_positions(log.bootstrap, log.app)["shop"].positions == {
        "": 4
    }  # the last that was written under this name
    for writer in (first, second, other):
        writer.close()


class Enough(Exception):
    """What was waited for has come."""


def test_who_follows_waits_for_a_source_that_fails(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.sources.pull._RETRY_S", 0.01)
    with feed_server() as server:
        server.put("/", json.dumps([{"id": "a"}]))

        def seen(totals: Totals) -> None:
            """Add an item, and trouble, each time that one has arrived."""
            if totals.records == 3:
                raise Enough
            items: list[dict[str, Any]] = [{"id": name} for name in "abc"[: totals.records + 1]]
            server.put("/", json.dumps(items))
            server.troubles = [status(500)] * 2

        server.troubles = [status(500)] * 2
        client = FeedClient(requests_per_s=1e6, tries=2, sleep=lambda _: None)
        with pytest.raises(Enough):
            log.pull(Kind.VIDEOS, unchanged=False).follow(
                CatalogueFeed(server.url + "/", client, ItemReader()), 0.01, seen
            )
        client.close()
    assert log.counts() == {"a": 1, "b": 1, "c": 1}
