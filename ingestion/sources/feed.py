"""A feed over HTTP: a catalogue whose pages are all walked each time, or a log of events that is read on from its last page.

**Catalogue** (videos, users): each page is asked for with the ETag or date that it had; one that has not changed is passed over, and
what is in the others is compared with the topic by `pull`, so that only what differs is sent. Position: one a page, with its next
page.

**Log** (events): the pages are read once, from the first to the last; the last one is asked for again, and of its items those are
taken that were not there before. Position: the last page, and the hashes of its items.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import xxhash

from ingestion.sources.batch import Batch, Positions, Row, SourceError
from ingestion.sources.feed_client import FeedClient, Page
from ingestion.sources.feed_items import ItemReader, Items

#: A feed whose last page leads to its first has no end.
MAX_PAGES: Final = 100_000
_LOG: Final = ""
_ETAG, _MODIFIED, _NEXT = "etag", "modified", "next"


class _Feed:
    """What both kinds share."""

    def __init__(self, url: str, client: FeedClient, items: ItemReader) -> None:
        self._url, self._client, self._items = url, client, items

    @property
    def identity(self) -> Mapping[str, str]:
        """Its first page's URL."""
        return {"feed": self._url}

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _fetch(self, url: str, known: Mapping[str, Any]) -> tuple[Page, Items] | None:
        """A page and what is in it; None if it is as it was."""
        read: list[Items] = []
        page = self._client.page(
            url, known.get(_ETAG), known.get(_MODIFIED), check=lambda page: read.append(self._items.read(page))
        )
        return None if page is None else (page, read[-1])


class CatalogueFeed(_Feed):
    """A feed of videos or users.

    Parameters
    ----------
    url : of its first page
    client : fetches pages
    items : reads them
    """

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """All pages that have changed."""
        url: str | None = self._url
        walked: set[str] = set()
        while url is not None:
            known = positions.get(url) or {}
            found = self._fetch(url, known)
            if found is None:
                following = known.get(_NEXT)
            else:
                page, items = found
                following = items.next_url
                position = {_ETAG: page.etag, _MODIFIED: page.modified, _NEXT: following}
                yield Batch(items.rows, {url: position} if position != known else {})
            walked.add(url)
            url = _further(self._url, following, walked)
        if gone := [known for known in positions if known not in walked]:
            yield Batch([], dict.fromkeys(gone))

    def present(self) -> Iterator[Row]:
        """All items of all pages, whether they have changed or not."""
        url: str | None = self._url
        walked: set[str] = set()
        while url is not None:
            found = self._fetch(url, {})
            assert found is not None  # nothing was asked that could be as it was  # noqa: S101
            yield from found[1].rows
            walked.add(url)
            url = _further(self._url, found[1].next_url, walked)


class LogFeed(_Feed):
    """A feed of events; see `CatalogueFeed` for what it takes."""

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """What is new on the last page, and the pages behind it."""
        position = positions.get(_LOG) or {"url": self._url, "seen": []}
        walked: set[str] = set()
        while True:
            url, seen = position["url"], set(position["seen"])
            found = self._fetch(url, position)
            if found is None:
                return
            page, items = found
            hashes = [_hash(row) for row in items.rows]
            new = [row for row, digest in zip(items.rows, hashes, strict=True) if digest not in seen]
            walked.add(url)
            following = _further(self._url, items.next_url, walked)
            if following is None:
                position = {"url": url, "seen": hashes, _ETAG: page.etag, _MODIFIED: page.modified}
            else:
                position = {"url": following, "seen": []}
            if new or position != positions.get(_LOG):
                yield Batch(new, {_LOG: position})
            if following is None:
                return

    def present(self) -> Iterator[Row]:
        """Events are not compared."""
        raise SourceError("events are not deleted: --compare is for videos and users")


def _further(first: str, following: str | None, walked: set[str]) -> str | None:
    if following is None:
        return None
    if following in walked:
        raise SourceError(f"{first}: its pages lead in a circle, back to {following}")
    if len(walked) >= MAX_PAGES:
        raise SourceError(f"{first}: more than {MAX_PAGES} pages")
    return following


def _hash(row: Row) -> str:
    return xxhash.xxh3_64_hexdigest(row.key.encode(errors="replace") + b"\0" + msgspec.json.encode(row.values))
