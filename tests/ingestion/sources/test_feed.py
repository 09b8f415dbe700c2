"""Feeds of a real server: pages are read once and whole, whatever happens on the way, and what has not changed is not read again."""

import datetime
import email.utils
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ingestion.source import Kind
from ingestion.sources.batch import Batch, Row, SourceError, SourceUnavailable
from ingestion.sources.feed import CatalogueFeed, LogFeed
from ingestion.sources.feed_client import FeedClient
from ingestion.sources.feed_items import ItemReader
from ingestion.sources.pull import Pull
from tests.ingestion.sources.feed_server import FeedServer, feed_server, half, hang_up, status
from tests.ingestion.sources.log import Log, once
from topics.catalog import Video

RSS = """<?xml version="1.0"?><rss version="2.0" xmlns:media="http://search.yahoo.com/mrss/"
 xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"><channel><title>Clips</title><language>en</language>
<item><guid>a1</guid><title>A &amp;amp; B</title><description>&lt;p&gt;Some &lt;b&gt;text&lt;/b&gt;&lt;/p&gt;</description>
<pubDate>Sun, 01 Mar 2026 12:00:00 GMT</pubDate><category>cats</category><category>dogs</category>
<media:content url="http://x/a.mp4" duration="95"/><media:keywords>funny, short</media:keywords></item>
<item><guid>{guid}</guid><title>Second</title><itunes:duration>1:02:03</itunes:duration></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:yt="http://www.youtube.com/xml/schemas/2015"
 xmlns:media="http://search.yahoo.com/mrss/"><title>T</title><link rel="next" href="/more"/>
<entry><id>yt:video:abc</id><yt:videoId>abc</yt:videoId><title>One</title><author><name>Ann</name></author>
<published>2026-03-01T12:00:00+00:00</published><media:group><media:description>Words</media:description></media:group></entry></feed>"""


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with feed_server() as found:
        yield found


@pytest.fixture
def slept() -> list[float]:
    return []


def client(slept: list[float], **how: Any) -> FeedClient:
    return FeedClient(
        requests_per_s=1e6, sleep=lambda seconds: slept.append(seconds) if seconds > 0.01 else None, **how
    )


def catalogue(server: FeedServer, slept: list[float], path: str = "/feed", **reading: Any) -> CatalogueFeed:
    return CatalogueFeed(server.url + path, client(slept), ItemReader(**reading))


def take(batches: Iterator[Batch], positions: dict[str, Any]) -> list[Row]:
    """Rows of a pass; `positions` moves on."""
    rows: list[Row] = []
    for batch in batches:
        rows += [row for row in batch.rows if isinstance(row, Row)]
        for part, position in batch.positions.items():
            if position is None:
                del positions[part]
            else:
                positions[part] = position
    return rows


def video(row: Row) -> Video:
    from ingestion.sources.rows import RowReader
    from topics.catalog import decode_video_value

    record = RowReader("feed", Kind.VIDEOS).record(row)
    assert record is not None
    return decode_video_value(record.value or b"")


def test_rss_and_atom_with_media_are_videos(server: FeedServer, slept: list[float]) -> None:
    long = "http://example.org/" + "x" * 200
    server.put("/feed", RSS.format(guid=long), "application/rss+xml")
    first, second = take(catalogue(server, slept).batches({}), {})
    assert first.key == "a1"
    assert video(first) == Video(
        title="A & B",
        description="Some text",
        categories=("cats", "dogs"),
        tags=("funny", "short"),
        language="en",
        duration_seconds=95.0,
        published_ms=1_772_366_400_000,
    )
    assert video(second).duration_seconds == 3723
    assert len(second.key) == 32  # a hash, as the guid is too long for an id
    server.put("/atom", ATOM, "application/atom+xml")
    server.put(
        "/more", ATOM.replace("abc", "def").replace('<link rel="next" href="/more"/>', ""), "application/atom+xml"
    )
    rows = take(catalogue(server, slept, "/atom").batches({}), {})
    assert [row.key for row in rows] == ["abc", "def"]
    assert (video(rows[0]).author, video(rows[0]).description) == ("Ann", "Words")


def test_pages_of_json_are_found_by_url_cursor_or_link(server: FeedServer, slept: list[float]) -> None:
    server.put("/feed", json.dumps({"items": [{"id": 1}], "next_url": "/feed?page=2"}))
    server.put("/feed?page=2", json.dumps({"items": [{"id": 2}], "next": None}))
    assert [row.key for row in take(catalogue(server, slept).batches({}), {})] == ["1", "2"]
    server.put("/api?size=1", json.dumps({"data": {"list": [{"sku": "a"}]}, "paging": {"after": "x=&"}}))
    server.put("/api?size=1&after=x%3D%26", json.dumps({"data": {"list": [{"sku": "b"}]}, "paging": {}}))
    how = {"items": "data.list", "next_page": "paging.after", "cursor_parameter": "after", "key": "sku"}
    assert [row.key for row in take(catalogue(server, slept, "/api?size=1", **how).batches({}), {})] == ["a", "b"]
    server.put("/link", "[]", Link='</last>; rel="next"')
    server.put("/last", '[{"id": "z"}]')
    assert [row.key for row in take(catalogue(server, slept, "/link").batches({}), {})] == ["z"]


def test_what_has_not_changed_is_not_sent_again(server: FeedServer, slept: list[float]) -> None:
    server.put("/feed", json.dumps({"items": [{"id": 1}], "next": "/two"}))
    server.put("/two", json.dumps({"items": [{"id": 2}]}))
    positions: dict[str, Any] = {}
    feed = catalogue(server, slept)
    assert len(take(feed.batches(positions), positions)) == 2
    server.asked.clear()
    assert take(feed.batches(positions), positions) == []
    assert server.asked == [("/feed", 304), ("/two", 304)]
    server.put("/two", json.dumps({"items": [{"id": 3}]}))
    assert [row.key for row in take(feed.batches(positions), positions)] == ["3"]
    server.put("/feed", json.dumps({"items": []}))  # the second page is no longer reached
    take(feed.batches(positions), positions)
    assert list(positions) == [server.url + "/feed"]


def test_trouble_is_waited_out_as_the_server_asks(server: FeedServer, slept: list[float]) -> None:
    body = json.dumps([{"id": number} for number in range(100)]).encode()
    server.put("/feed", body)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=40)
    server.troubles = [
        status(429, Retry_After="7"),
        status(503, Retry_After=email.utils.format_datetime(later, usegmt=True)),
        status(500),
        half(body),
        half(body, said=False),
    ]
    assert len(take(catalogue(server, slept).batches({}), {})) == 100
    assert slept[0] == 7
    assert 30 < slept[1] <= 40
    assert len(slept) == 5
    assert all(0 < pause <= 60 for pause in slept)


def test_half_of_an_rss_feed_is_not_taken_for_all_of_it(server: FeedServer, slept: list[float]) -> None:
    body = RSS.format(guid="b2").encode()
    server.put("/feed", body, "application/rss+xml")
    server.troubles = [half(body, "application/rss+xml", said=False), hang_up]
    assert len(take(catalogue(server, slept).batches({}), {})) == 2
    server.troubles = [half(body, "application/rss+xml", said=False)] * 6
    with pytest.raises(SourceUnavailable, match="no whole RSS"):
        take(catalogue(server, slept).batches({}), {})


def test_a_server_that_goes_on_failing_is_given_up_for_now(server: FeedServer, slept: list[float]) -> None:
    server.troubles = [status(500)] * 6
    with pytest.raises(SourceUnavailable, match="status 500"):
        take(catalogue(server, slept).batches({}), {})
    assert len(server.asked) == 6
    server.troubles = [status(429, Retry_After="86400")]
    with pytest.raises(SourceUnavailable, match="86400"):
        take(catalogue(server, slept).batches({}), {})
    with pytest.raises(SourceError, match="status 404: check the address"):
        take(catalogue(server, slept, "/nothing").batches({}), {})
    server.put("/feed", "<html>no feed</html>", "text/html")
    with pytest.raises(SourceError):
        take(catalogue(server, slept).batches({}), {})
    server.put("/feed", json.dumps({"items": [], "next": "/feed"}))
    with pytest.raises(SourceError, match="circle"):
        take(catalogue(server, slept).batches({}), {})


def test_no_more_requests_than_agreed_and_a_token_for_whom_it_is(server: FeedServer) -> None:
    waits: list[float] = []
    server.put("/feed", "[]")
    polite = FeedClient(token="abc", requests_per_s=0.5, sleep=waits.append)  # noqa: S106
    for _ in range(3):
        polite.page(server.url + "/feed")
    polite.close()
    assert waits[0] == 0
    assert all(1.5 < wait <= 2 for wait in waits[1:])
    assert server.authorization == ["Bearer abc"] * 3


def test_a_log_of_events_is_read_on_from_its_last_page(server: FeedServer, slept: list[float]) -> None:
    def put(pages: int, last: list[int]) -> None:
        for page in range(1, pages + 1):
            events = [{"id": f"{page}-{number}"} for number in (last if page == pages else range(2))]
            server.put(
                f"/log?p={page}", json.dumps({"events": events} | ({"next": f"?p={page + 1}"} if page < pages else {}))
            )

    feed = LogFeed(server.url + "/log?p=1", client(slept), ItemReader())
    positions: dict[str, Any] = {}
    put(2, [0])
    assert [row.key for row in take(feed.batches(positions), positions)] == ["1-0", "1-1", "2-0"]
    server.asked.clear()
    assert take(feed.batches(positions), positions) == []
    assert server.asked == [("/log?p=2", 304)]
    put(2, [0, 1])
    assert [row.key for row in take(feed.batches(positions), positions)] == ["2-1"]
    put(4, [])
    assert [row.key for row in take(feed.batches(positions), positions)] == ["3-0", "3-1"]
    put(4, [0])
    server.asked.clear()
    assert [row.key for row in take(feed.batches(positions), positions)] == ["4-0"]
    assert server.asked == [("/log?p=4", 200)]


@pytest.mark.broker
def test_only_items_that_differ_reach_the_topic(server: FeedServer, slept: list[float], log: Log) -> None:
    def put(*items: tuple[str, str]) -> None:
        server.put(
            "/feed", json.dumps([{"id": name, "title": title} for name, title in items] + [{"id": "bad", "title": 5}])
        )

    def pull(**how: Any) -> Any:
        job: Pull = log.pull(Kind.VIDEOS, unchanged=False, **how)
        return once(job, catalogue(server, slept))

    put(("a", "1"), ("b", "1"), ("c", "1"))
    sent = pull()
    assert (sent.records, sent.refused) == (3, 1)
    assert pull().records == 0
    put(("d", "1"), ("a", "2"), ("b", "1"))
    sent = pull(compare=True)
    assert (sent.records, sent.tombstones) == (2, 1)
    assert {name: video.title for name, video in log.catalogue().items()} == {"a": "2", "b": "1", "d": "1"}
    assert log.counts() == {"a": 2, "b": 1, "c": 2, "d": 1}
