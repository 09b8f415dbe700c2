"""Ids of users, videos and events: 1 to 128 bytes of UTF-8, the same rule for every record and for HTTP paths."""

from collections.abc import Sequence

from topics.rejected import Reason, Rejected

MAX_ID_BYTES = 128  # ids are keys of every table: an unbounded one would make every bound on memory meaningless
_ALWAYS_FITS = MAX_ID_BYTES // 4  # characters; UTF-8 takes at most 4 bytes each, so most ids need no encoding


def is_id(text: str) -> bool:
    """Tell whether `text` encodes to 1 to 128 bytes of UTF-8."""
    length = len(text)
    if 0 < length <= _ALWAYS_FITS and text.isascii():
        return True
    if not 0 < length <= MAX_ID_BYTES:
        return False
    try:
        return len(text.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def are_ids(texts: Sequence[str]) -> bool:
    """Tell whether each of `texts`, as decoded from UTF-8, is an id."""
    lengths = list(map(len, texts))
    if min(lengths, default=1) > 0 and max(lengths, default=1) <= _ALWAYS_FITS:
        return True
    return all(map(is_id, texts))


def require_id(name: str, text: str) -> None:
    """Raise `Rejected(bad_id)` unless `text` is an id; `name` is the field that the message names."""
    if not is_id(text):
        raise Rejected(Reason.BAD_ID, f"{name} must be 1 to {MAX_ID_BYTES} bytes of UTF-8, got {text[:40]!r}")


def id_of_key(key: bytes | None) -> str:
    """Decode a record's key into the id that it is, or raise `Rejected(bad_id)`."""
    if key is None or not 0 < len(key) <= MAX_ID_BYTES:
        raise Rejected(Reason.BAD_ID, f"key must be 1 to {MAX_ID_BYTES} bytes, got {_size(key)}")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise Rejected(Reason.BAD_ID, f"key is not UTF-8: {error.reason}") from None


def _size(key: bytes | None) -> str:
    return "no key" if key is None else f"{len(key)} bytes"
