"""Pages over HTTP, asked for politely and until they come whole.

A URL flows in, a `Page` flows out, or None where the server says that nothing changed. Tried again, with growing pauses: no answer,
half an answer, 408, 425, 429 and 5xx; `Retry-After` is obeyed. Always holds: never more requests a second than agreed.
"""

import datetime
import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import tenacity

from ingestion.sources.batch import SourceError, SourceUnavailable

CONNECT_S: Final = 10.0
READ_S: Final = 30.0
#: Answers after which the same is asked again.
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: A page is held in memory; beyond it a server is broken or hostile.
MAX_PAGE_BYTES: Final = 64 * 1024 * 1024
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
#: A server that asks for a longer pause than this is left until the next pull.
LONGEST_RETRY_AFTER_S: Final = 300.0


class _TryAgain(Exception):
    """A request that may come right by itself; `after_s` is what the server asks for."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


@dataclass(frozen=True)
class Page:
    """An answer that came whole.

    Attributes
    ----------
    etag, modified : to ask with the next time
    next_url : of a Link header with rel=next
    """

    url: str
    body: bytes
    content_type: str
    etag: str | None
    modified: str | None
    next_url: str | None


class FeedClient:
    """A client of one feed.

    Parameters
    ----------
    token : sent as `Authorization: Bearer`, and to no other host
    requests_per_s : at most
    tries : of one page, before it is given up for this time
    sleep : waits; another one in tests
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        requests_per_s: float = 5.0,
        tries: int = 6,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {
            "User-Agent": "headrace",
            "Accept": "application/json, application/atom+xml, application/rss+xml, */*;q=0.5",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(
            headers=headers, follow_redirects=True, timeout=httpx.Timeout(READ_S, connect=CONNECT_S)
        )
        self._pause_s = 1 / requests_per_s
        self._sleep = sleep
        self._due = 0.0
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TryAgain),
            stop=tenacity.stop_after_attempt(tries),
            wait=_pause,
            sleep=sleep,
            reraise=True,
        )

    def page(
        self, url: str, etag: str | None = None, modified: str | None = None, check: Callable[[Page], Any] | None = None
    ) -> Page | None:
        """Fetch a page; None if it is as `etag` or `modified` say.

        Parameters
        ----------
        check : called with the page; a ValueError of it means that the page is not whole, and it is asked for again

        Raises
        ------
        SourceUnavailable
            All tries failed.
        SourceError
            The server refuses, and would refuse again.
        """
        conditions = {}
        if etag is not None:
            conditions["If-None-Match"] = etag
        if modified is not None:
            conditions["If-Modified-Since"] = modified
        try:
            return self._retrying(self._once, url, conditions, check)
        except _TryAgain as error:
            raise SourceUnavailable(f"{url}: {error}") from error

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _once(self, url: str, conditions: dict[str, str], check: Callable[[Page], Any] | None) -> Page | None:
        self._sleep(max(self._due - time.monotonic(), 0.0))
        self._due = time.monotonic() + self._pause_s
        try:
            with self._client.stream("GET", url, headers=conditions) as answer:
                status = answer.status_code
                if status == httpx.codes.NOT_MODIFIED and conditions:
                    return None
                if status in _RETRIED:
                    after_s = _retry_after(answer.headers.get("Retry-After"))
                    if after_s is not None and after_s > LONGEST_RETRY_AFTER_S:
                        raise SourceUnavailable(f"{url}: status {status}, and to come back in {after_s:.0f} s")
                    raise _TryAgain(f"status {status}", after_s)
                if status != httpx.codes.OK:
                    raise SourceError(
                        f"{url}: status {status}: check the address, and the token in HEADRACE_SOURCE_TOKEN"
                    )
                page = _whole(answer)
        except httpx.InvalidURL as error:
            raise SourceError(f"{url}: {error}") from error
        except httpx.UnsupportedProtocol as error:
            raise SourceError(f"{url}: {error}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        except httpx.TooManyRedirects as error:
            raise SourceError(f"{url}: {error}") from error
        if check is not None:
            try:
                check(page)
            except ValueError as error:
                raise _TryAgain(f"cannot be read: {error}") from error
        return page


def _whole(answer: httpx.Response) -> Page:
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_PAGE_BYTES:
            raise SourceError(f"{answer.url}: longer than {MAX_PAGE_BYTES} bytes: ask for smaller pages")
    next_url = answer.links.get("next", {}).get("url")
    return Page(
        str(answer.url),
        bytes(body),
        answer.headers.get("Content-Type", ""),
        answer.headers.get("ETag"),
        answer.headers.get("Last-Modified"),
        None if next_url is None else str(answer.url.join(next_url)),
    )


def _retry_after(text: str | None) -> float | None:
    """Seconds of the header, which gives them or a date."""
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)
    return max((at - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)


def _pause(state: tenacity.RetryCallState) -> float:
    """What the server asks for, else twice as long each time, by chance up to a half shorter."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.after_s if isinstance(error, _TryAgain) else None
    if asked is not None:
        return asked
    spread = tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S, min=_FIRST_PAUSE_S / 2)
    return spread(state)
