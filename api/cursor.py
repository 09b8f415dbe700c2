"""The cursor of a list: what was in the pages before, so that the next one continues without repeats, whatever was learned since.

Flows in: videos as they were served, or the text that a client sends back. Flows out: that text, or the lower halves of the videos'
hashes. Always holds: nothing is kept here between two pages; a cursor that was cut short or made up is refused.

Layout, in URL-safe base64 without padding: a version byte, four bytes of a checksum of the rest, and four bytes a video. Two videos
share a lower half once in four billion: then one of them is missing in later pages.
"""

import base64
import binascii

import numpy as np
import xxhash

from state.types import UInt32Array, UInt64Array

VERSION = 1
#: Videos in all pages of one list; a longer text would not fit into the line of a request.
MAX_SHOWN = 1_000
MAX_CURSOR = 6_000

_HEAD = 5


class BadCursor(ValueError):
    """The text is no cursor that this release has made."""


def encode_cursor(shown: UInt32Array | None, codes: UInt64Array) -> str | None:
    """The cursor behind one more page, None where there is no room for another.

    Parameters
    ----------
    shown : lower halves of what was in the pages before; None for a first page
    codes : uint64, shape (n,); hashes of this page's videos
    """
    halves = codes.astype(np.uint32)
    if shown is not None:
        halves = np.concatenate([shown, halves])
    if len(halves) >= MAX_SHOWN:
        return None
    body = halves.astype("<u4").tobytes()
    head = bytes([VERSION]) + xxhash.xxh32_digest(body)
    return base64.urlsafe_b64encode(head + body).rstrip(b"=").decode()


def decode_cursor(text: str) -> UInt32Array:
    """Lower halves of the hashes of what was shown; uint32, shape (m,). Raises BadCursor."""
    if len(text) > MAX_CURSOR:
        raise BadCursor("longer than any cursor")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadCursor("no base64") from error
    body = data[_HEAD:]
    if data[:_HEAD] != bytes([VERSION]) + xxhash.xxh32_digest(body) or len(body) % 4:
        raise BadCursor("cut short, or of another release")
    return np.frombuffer(body, "<u4").astype(np.uint32)
