"""What is in a page of a feed: items of JSON (also JSON Feed), RSS or Atom with Media RSS, as rows; and where the next page is.

A page that is not whole raises ValueError: half of a list must not be taken for all of it.
"""

import calendar
import html
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import feedparser
import msgspec
import xxhash

from ingestion.sources.batch import Row
from ingestion.sources.feed_client import Page
from topics.ids import MAX_ID_BYTES, is_id

_LISTS: Final = ("items", "data", "results", "videos", "events", "users", "entries")
_NEXT: Final = ("next_url", "next", "next_page", "next_cursor")
_TAG: Final = re.compile(r"<[^>]*>")
#: As `topics.catalog.Video` has them: what is longer is cut, as a feed is not ours to mend.
_TITLE, _TEXT, _WORD, _WORDS = 500, 10_000, 128, 64


class Items(NamedTuple):
    """Items of a page, and the URL of the next one."""

    rows: list[Row]
    next_url: str | None


class ItemReader:
    """Reads pages.

    Parameters
    ----------
    items : where the list is in JSON, as `data.videos`; by default looked for
    next_page : where the next page's URL or cursor is, likewise
    cursor_parameter : of the URL, for a cursor
    key : field that tells items apart
    deleted : field that marks deleted ones
    """

    def __init__(
        self,
        *,
        items: str | None = None,
        next_page: str | None = None,
        cursor_parameter: str = "cursor",
        key: str = "id",
    ) -> None:
        self._items, self._next, self._cursor, self._key = items, next_page, cursor_parameter, key

    def read(self, page: Page) -> Items:
        """Read a page. Raises ValueError."""
        start = page.body.lstrip()[:1]
        return self._json(page) if start in (b"{", b"[") or "json" in page.content_type else _syndicated(page)

    def _json(self, page: Page) -> Items:
        try:
            whole = msgspec.json.decode(page.body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"no JSON: {error}") from error
        found = _at(whole, self._items) if self._items is not None else _looked_for(whole)
        if not isinstance(found, list):
            raise ValueError(f"no list at {self._items or ' or '.join(_LISTS)}: say where it is with --items")
        rows = [
            Row(_key_of(each.get(self._key)), each) if isinstance(each, dict) else Row("", {"item": each})
            for each in found
        ]
        return Items(rows, self._next_url(page, whole))

    def _next_url(self, page: Page, whole: Any) -> str | None:
        if page.next_url is not None:
            return page.next_url
        if self._next is not None:
            found = _at(whole, self._next)
        else:
            found = next((whole[name] for name in _NEXT if whole.get(name)), None) if isinstance(whole, dict) else None
        if found is None or found == "" or isinstance(found, bool | dict | list):
            return None
        text = str(found)
        if text.startswith(("http://", "https://", "/", "?")):
            return urljoin(page.url, text)
        parts = urlsplit(page.url)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != self._cursor]
        return urlunsplit(parts._replace(query=urlencode([*query, (self._cursor, text)])))


def _at(whole: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(whole, dict):
            return None
        whole = whole.get(name)
    return whole


def _looked_for(whole: Any) -> Any:
    if not isinstance(whole, dict):
        return whole
    return next((whole[name] for name in _LISTS if isinstance(whole.get(name), list)), None)


def _key_of(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list | bool) else str(value)


def _syndicated(page: Page) -> Items:
    # Never a URL or a file name: the parser gets the bytes alone, and fetches nothing.
    parsed = feedparser.parse(page.body, response_headers={"content-type": page.content_type})
    error = parsed.get("bozo_exception")
    if error is not None and not isinstance(error, feedparser.exceptions.ThingsNobodyCaresAboutButMe):
        raise ValueError(f"no whole RSS or Atom: {error}")
    if not parsed.version:
        raise ValueError("neither JSON, RSS nor Atom")
    language = parsed.feed.get("language")
    rows = [_video(entry, language) for entry in parsed.entries]
    links = [link.get("href") for link in parsed.feed.get("links", ()) if link.get("rel") == "next"]
    return Items(rows, page.next_url or (urljoin(page.url, links[0]) if links and links[0] else None))


def _video(entry: Mapping[str, Any], language: str | None) -> Row:
    """An entry's fields as those of a video."""
    identity = str(entry.get("yt_videoid") or entry.get("id") or entry.get("link") or "")
    if identity and not is_id(identity):
        identity = xxhash.xxh3_128_hexdigest(identity.encode(errors="replace"))  # a URL of more than 128 bytes
    keywords = [word.strip() for word in str(entry.get("media_keywords") or "").split(",")]
    labels = [tag.get("label") or tag.get("term") for tag in entry.get("tags", ())]
    media = [each for each in entry.get("media_content", ()) if isinstance(each, dict)]
    values: dict[str, Any] = {
        "title": _plain_text(entry.get("title"), _TITLE),
        "description": _plain_text(entry.get("summary") or entry.get("media_description"), _TEXT),
        "categories": _some_words(label for label in labels if label not in keywords),
        "tags": _some_words(keywords),
        "author": _plain_text(entry.get("author"), _WORD) or None,
        "language": entry.get("language") or language,
        "duration_seconds": _duration_s(entry.get("itunes_duration"), media),
    }
    published = entry.get("published_parsed") or entry.get("updated_parsed")
    if published is not None and (at_s := calendar.timegm(published)) >= 0:
        values["published_ms"] = at_s * 1000
    return Row(identity, values)


def _plain_text(text: Any, most: int) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", str(text or ""))).split())[:most]


def _some_words(found: Any) -> list[str]:
    cleaned = (" ".join(str(word).split()) for word in found if word)
    return list(dict.fromkeys(word for word in cleaned if word and len(word) <= _WORD))[:_WORDS]


def _duration_s(text: Any, media: list[Any]) -> float | None:
    """Seconds of `90`, `1:30` or `0:01:30`, else those of the media."""
    for found in (text, *(each.get("duration") for each in media)):
        try:
            seconds = 0.0
            for part in str(found).split(":"):
                seconds = 60 * seconds + float(part)
        except ValueError:
            continue
        if 0 <= seconds < 1e9:
            return seconds
    return None


assert MAX_ID_BYTES >= 32  # noqa: S101 - a hash fits
