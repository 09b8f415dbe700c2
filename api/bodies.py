"""Bodies: read whole before a view sees the request, within a size, a time and a share of memory.

Flows in: a request's stream. Flows out: its bytes, for `request.read()` to return at once, or a problem. Always holds: what all
requests under way hold of bodies is bounded, so neither slow clients nor a log that does not acknowledge can fill the memory.
"""

import asyncio
import zlib

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from api.errors import Problem, bad_request, unavailable
from api.middleware import MAX_BODY_BYTES

#: Of all requests under way together: 24 of the largest, and beside them some 50,000 of one event.
MAX_HELD_BYTES = 64 << 20
#: Bodies larger than this have that share: a few clients with large and slow ones do not keep out those with one event.
SMALL_BYTES, LARGE_SHARE = 65_536, 0.75
#: A body of `MAX_BODY_BYTES` takes this long at 1.7 Mbit/s.
WITHIN_S = 10.0
METHODS = frozenset({"POST", "PUT", "PATCH"})
#: Content-Encodings that are unpacked here, and not by aiohttp as they come in: of a body that was refused for what it unpacks
#: to, it would unpack the rest too, and hold the loop for seconds.
CODINGS = ("gzip", "deflate")


class Bodies:
    """Reads bodies, and keeps account of them.

    Parameters
    ----------
    within_s : for a whole body, from when its headers are there
    most_held_bytes : of all requests under way
    """

    def __init__(self, within_s: float = WITHIN_S, most_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._within_s = within_s
        self._most_held_bytes = most_held_bytes
        self.held_bytes = 0

    async def take(self, request: web.Request) -> int:
        """Read the request's body, if it has one that anybody reads; returns its bytes, which `release` gives back.

        Raises
        ------
        Problem
            400 for a body that breaks off or is not what its headers say, 408 for a slow one, 413 for one that is too large once
            unpacked, 503 while too much is held.
        """
        if request.method not in METHODS or not request.body_exists:
            return 0
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise _too_large()
        held = Held(self)
        try:
            if request.content.is_eof():
                # As nearly all are: here with their headers. A timer would cost more than the rest.
                held.add(request.content.read_nowait())
            else:
                async with asyncio.timeout(self._within_s):
                    while chunk := await request.content.readany():
                        held.add(chunk)
            if (coding := request.headers.get("Content-Encoding", "identity")) != "identity":
                held.replace(unpacked(bytes(held.body), coding))
        except BaseException as error:
            self.release(len(held.body))
            if isinstance(error, TimeoutError):
                raise Problem(408, "request_timeout", f"the body was not there within {self._within_s:g} s") from error
            if isinstance(error, ConnectionError | HttpProcessingError | RequestPayloadError):
                raise bad_request("incomplete_body", "the body breaks off, or is not as its headers say") from error
            raise
        request._read_bytes = bytes(held.body)
        return len(held.body)

    def hold(self, size_bytes: int, *, large: bool) -> None:
        """Have so much more in memory. Raises Problem if that is too much."""
        most = self._most_held_bytes * LARGE_SHARE if large else self._most_held_bytes
        if self.held_bytes + size_bytes > most:
            raise unavailable("too many bodies are under way")
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """The request is answered."""
        self.held_bytes -= size_bytes


class Held:
    """A body that is coming in."""

    def __init__(self, bodies: Bodies) -> None:
        self.body = bytearray()
        self._bodies = bodies

    def add(self, chunk: bytes) -> None:
        """Append what came. Raises Problem."""
        size_bytes = len(self.body) + len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            raise _too_large()
        self._bodies.hold(len(chunk), large=size_bytes > SMALL_BYTES)
        self.body += chunk

    def replace(self, body: bytes) -> None:
        """Have another body instead. Raises Problem."""
        self._bodies.hold(len(body) - len(self.body), large=len(body) > SMALL_BYTES)
        self.body = bytearray(body)


def unpacked(body: bytes, coding: str) -> bytes:
    """What a body of that Content-Encoding has in it; never more than `MAX_BODY_BYTES`, whatever a few bytes promise.

    Raises
    ------
    Problem
        400 for a body that is not so encoded, 413 for one that is too large unpacked, 415 for another encoding.
    """
    if coding.lower() not in CODINGS:
        accepted = ", ".join(CODINGS)
        raise Problem(415, "unknown_encoding", f"a body may be encoded as {accepted}", {"Accept-Encoding": accepted})
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise bad_request("incomplete_body", f"the body is no {coding}") from error
    if len(plain) > MAX_BODY_BYTES:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise bad_request("incomplete_body", f"the body is no {coding}, or more than that")
    return plain


def _too_large() -> Problem:
    return Problem(413, "request_entity_too_large", f"a body may have {MAX_BODY_BYTES:,} bytes, unpacked")
