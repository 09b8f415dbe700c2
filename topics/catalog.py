"""The compacted topics `videos` and `users`: key = id as UTF-8, value = JSON, schema version 1, no value = deleted.

Bytes flow in, a checked `Video` or `User` (or None for a tombstone) flows out, or `Rejected` with a reason.
"""

import math
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from topics.ids import id_of_key
from topics.partitions import partition_of
from topics.rejected import Reason, Rejected

SCHEMA_VERSION: Final = 1
MAX_VALUE_BYTES = 65_536  # text of a video; kept in memory for every video of the catalogue
MAX_EMBEDDING: Final = 1_024  # dimensions, one byte each

_Title = Annotated[str, msgspec.Meta(max_length=500)]
_Text = Annotated[str, msgspec.Meta(max_length=10_000)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Words = Annotated[tuple[_Word, ...], msgspec.Meta(max_length=64)]
_Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


def _schema_version() -> Literal[1]:
    return SCHEMA_VERSION


class Video(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the catalogue knows of a video; its id is the record's key.

    Attributes
    ----------
    duration_seconds : None where unknown
    published_ms : milliseconds since 1970; None: known from its first event on
    hidden : never recommended, but its events are still learned
    embedding : vector of what title and description mean, as signed bytes in equal steps (in JSON: base64), of any model, as long as
        all videos have the same; then their words do not count
    v : schema version; see `Interaction.v`
    """

    title: _Title = ""
    description: _Text = ""
    categories: _Words = ()
    tags: _Words = ()
    author: _Word | None = None
    language: _Word | None = None
    duration_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    published_ms: _Millis | None = None
    hidden: bool = False
    embedding: Annotated[bytes, msgspec.Meta(min_length=8, max_length=MAX_EMBEDDING)] | None = None
    v: Literal[1] = msgspec.field(default_factory=_schema_version)


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of a user beside events; the id is the record's key. `attributes` is free, and bounded by size.

    `erased_ms` asks to forget all else: what was learned of the user until then (milliseconds since 1970) is erased, and events of
    before that count and are not learned. It stays when later records do not have it.
    """

    language: _Word | None = None
    country: _Word | None = None
    age_band: _Word | None = None
    segments: _Words = ()
    attributes: dict[_Word, str | int | float | bool | None] = {}
    erased_ms: _Millis | None = None
    v: Literal[1] = msgspec.field(default_factory=_schema_version)


_Entry = TypeVar("_Entry", Video, User)
_encoder = msgspec.json.Encoder()


def encode(entry: Video | User) -> bytes:
    """Encode a value for its topic, or raise `Rejected` if a consumer would refuse it."""
    if isinstance(entry, Video) and entry.duration_seconds is not None and not math.isfinite(entry.duration_seconds):
        # JSON has neither NaN nor infinity: the encoder would write null, and the number be lost without a word
        raise Rejected(Reason.BAD_NUMBER, f"duration_seconds must be finite, got {entry.duration_seconds}")
    value = _encoder.encode(entry)
    if isinstance(entry, Video):
        decode_video_value(value)
    else:
        decode_user_value(value)
    return value


def decode_video(
    key: bytes | None, value: bytes | None, *, partition: int, partitions: int
) -> tuple[str, Video | None]:
    """Decode a record of `videos` into the id and the video, or None for a tombstone.

    Raises
    ------
    Rejected
        With the reason and what was found.
    """
    return _decode(key, value, Video, partition, partitions)


def decode_user(key: bytes | None, value: bytes | None, *, partition: int, partitions: int) -> tuple[str, User | None]:
    """Decode a record of `users` into the id and the user, or None for a tombstone; as `decode_video`."""
    return _decode(key, value, User, partition, partitions)


def decode_video_value(value: bytes) -> Video:
    """Decode and check a video on its own, as HTTP hands it in."""
    return _decode_value(value, Video)


def decode_user_value(value: bytes) -> User:
    """Decode and check a user on its own, as HTTP hands it in."""
    return _decode_value(value, User)


def _decode(
    key: bytes | None, value: bytes | None, kind: type[_Entry], partition: int, partitions: int
) -> tuple[str, _Entry | None]:
    entry_id = id_of_key(key)
    expected = partition_of(entry_id.encode(), partitions)
    if expected != partition:
        raise Rejected(Reason.WRONG_PARTITION, f"lies in {partition}, its key belongs to {expected} of {partitions}")
    return entry_id, None if value is None else _decode_value(value, kind)


def _decode_value(value: bytes, kind: type[_Entry]) -> _Entry:
    if not value:
        raise Rejected(Reason.EMPTY, "the value is empty; a deletion has no value at all")
    if len(value) > MAX_VALUE_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"{len(value)} bytes, at most {MAX_VALUE_BYTES} are taken")
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _explained(value, kind, error) from None


def _explained(value: bytes, kind: type[Any], error: Exception) -> Rejected:
    text = str(error)
    try:
        raw = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Rejected(Reason.BAD_NUMBER if "out of range" in text else Reason.MALFORMED_JSON, text)
    if not isinstance(raw, dict):
        return Rejected(Reason.WRONG_TYPE, text)
    version = raw.get("v", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or type(version) is not int:
        return Rejected(Reason.SCHEMA_VERSION, f"version {version!r}, this release reads {SCHEMA_VERSION}")
    if unknown := [name for name in raw if name not in kind.__struct_fields__]:
        return Rejected(Reason.UNKNOWN_FIELD, f"unknown: {', '.join(unknown[:5])}")
    if "length" in text:
        return Rejected(Reason.TOO_LARGE, text)
    if "out of range" in text or ">=" in text or "<=" in text:
        return Rejected(Reason.BAD_NUMBER, text)
    return Rejected(Reason.WRONG_TYPE, text)
