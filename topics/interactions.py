"""The `interactions` topic: what a user did with a video. Key = user_id as UTF-8, value = JSON, schema version 1.

Bytes flow in, a checked `Interaction` flows out, or `Rejected` with a reason. What `decode` accepts holds: ids are 1
to 128 bytes of UTF-8, numbers are finite and not negative, the event is known, the key is the user's and the record
lies in the user's partition. This is the hot path: one pass, about 1.5 µs an event; a refusal may take longer.
"""

import math
from typing import Annotated, Any, Final, Literal, NoReturn, get_args

import msgspec

from topics.ids import MAX_ID_BYTES, is_id, require_id
from topics.partitions import partition_of
from topics.rejected import Reason, Rejected

Event = Literal[
    "impression", "view", "watch", "like", "unlike", "share", "comment", "follow", "skip", "dislike"
]  # packed rows hold positions in this list: append only
EVENTS: Final[tuple[Event, ...]] = get_args(Event)
_CODES: Final[dict[str, int]] = {event: code for code, event in enumerate(EVENTS)}

SCHEMA_VERSION: Final = 1
MAX_VALUE_BYTES = 16_384  # an event is about 200 bytes; a context that needs more would fill the log and the state
_FITS_CHARS = MAX_ID_BYTES // 4  # UTF-8 takes at most 4 bytes a character, so shorter ids need no counting

_Number = Annotated[float, msgspec.Meta(ge=0)]


def _schema_version() -> Literal[1]:
    return SCHEMA_VERSION


class Interaction(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """One thing a user did with a video.

    Attributes
    ----------
    event_id : unique among the user's events; a second record with it is a duplicate
    at_ms : event time, milliseconds since 1970 (the record's own timestamp is its arrival)
    watch_seconds, duration_seconds : of a `watch`: time played (loops count) and the video's length
    recommendation_id : the answer from which the user came
    v : schema version; a factory gives the default because `omit_defaults` would leave a constant off the wire
    """

    event_id: str
    user_id: str
    video_id: str
    event: Event
    at_ms: Annotated[int, msgspec.Meta(ge=0)]
    watch_seconds: _Number | None = None
    duration_seconds: _Number | None = None
    session_id: str | None = None
    recommendation_id: str | None = None
    context: dict[str, str | int | float | bool | None] | None = None
    v: Literal[1] = msgspec.field(default_factory=_schema_version)


_FIELDS: Final = Interaction.__struct_fields__
_REQUIRED: Final = ("event_id", "user_id", "video_id", "event", "at_ms")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Interaction).decode


def event_code(event: str) -> int:
    """Position of `event` in `EVENTS`, the number that packed rows hold; KeyError if unknown."""
    return _CODES[event]


def encode(interaction: Interaction) -> bytes:
    """Encode a value for the topic; its key is `user_id.encode()`.

    Raises
    ------
    Rejected
        If a consumer would refuse it. NaN in particular: JSON has none, and it would silently become null.
    """
    for name in ("watch_seconds", "duration_seconds"):
        number = getattr(interaction, name)
        if number is not None and not 0 <= number < math.inf:
            raise Rejected(Reason.BAD_NUMBER, f"{name} must be finite and not negative, got {number}")
    if interaction.event not in _CODES:
        raise Rejected(Reason.UNKNOWN_EVENT, f"{interaction.event!r} is none of {', '.join(EVENTS)}")
    if interaction.at_ms < 0:
        raise Rejected(Reason.BAD_TIME, f"at_ms {interaction.at_ms} is before 1970")
    _require_ids(interaction)
    value = _encode(interaction)
    if len(value) > MAX_VALUE_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"{len(value)} bytes, at most {MAX_VALUE_BYTES} are taken")
    return value


def decode_value(value: bytes) -> Interaction:
    """Decode and check a value on its own, as HTTP hands it in; `decode` is for whole records.

    Raises
    ------
    Rejected
        With the reason and what was found.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"{len(value)} bytes, at most {MAX_VALUE_BYTES} are taken")
    try:
        interaction = _decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _explain(value, error)
    if not (
        0 < len(interaction.user_id) <= _FITS_CHARS
        and 0 < len(interaction.video_id) <= _FITS_CHARS
        and 0 < len(interaction.event_id) <= _FITS_CHARS
        and ((session := interaction.session_id) is None or 0 < len(session) <= _FITS_CHARS)
        and ((served := interaction.recommendation_id) is None or 0 < len(served) <= _FITS_CHARS)
    ):
        _require_ids(interaction)
    return interaction


def require_time(at_ms: int, timestamp_ms: int, future_tolerance_ms: int) -> None:
    """Raise `Rejected(bad_time)` if `at_ms` lies further ahead of the arrival than the tolerance (all ms)."""
    if at_ms > timestamp_ms + future_tolerance_ms:
        ahead_s = (at_ms - timestamp_ms) // 1000
        raise Rejected(Reason.BAD_TIME, f"at_ms {at_ms} is {ahead_s} s ahead of the record's arrival")


def require_partition(key: bytes, partition: int, partitions: int) -> None:
    """Raise `Rejected(wrong_partition)` unless the key belongs to the partition."""
    expected = partition_of(key, partitions)
    if expected != partition:
        raise Rejected(Reason.WRONG_PARTITION, f"lies in {partition}, its key belongs to {expected} of {partitions}")


def decode(
    key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    *,
    partition: int,
    partitions: int,
    future_tolerance_ms: int,
) -> Interaction:
    """Decode and check one record of the topic.

    Parameters
    ----------
    key, value : the record's bytes; neither is changed
    timestamp_ms : the record's log-append time; the future is judged by it, so that a replay decides alike
    partition, partitions : where the record lay, and how many the topic has
    future_tolerance_ms : how far `at_ms` may lie ahead of `timestamp_ms`

    Raises
    ------
    Rejected
        With the reason and what was found.
    """
    if not value:
        raise Rejected(Reason.EMPTY, "the record has no value")
    interaction = decode_value(value)
    if interaction.user_id.encode() != key:
        shown = "no key" if key is None else repr(key[:40])
        raise Rejected(Reason.KEY_MISMATCH, f"key must be user_id {interaction.user_id[:40]!r}, got {shown}")
    require_partition(key, partition, partitions)
    if interaction.at_ms > timestamp_ms + future_tolerance_ms:
        require_time(interaction.at_ms, timestamp_ms, future_tolerance_ms)
    return interaction


def _require_ids(interaction: Interaction) -> None:
    require_id("event_id", interaction.event_id)
    require_id("user_id", interaction.user_id)
    require_id("video_id", interaction.video_id)
    for name in ("session_id", "recommendation_id"):
        text = getattr(interaction, name)
        if text is not None and not is_id(text):
            require_id(name, text)


def _explain(value: bytes, error: Exception) -> NoReturn:
    """Find the reason for a failed decode; slow and generic, the fast decoder says only where it stopped."""
    out_of_range = "out of range" in str(error)
    try:
        raw = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Rejected(Reason.BAD_NUMBER if out_of_range else Reason.MALFORMED_JSON, str(error)) from None
    if not isinstance(raw, dict):
        raise Rejected(Reason.WRONG_TYPE, str(error)) from None
    version = raw.get("v", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or type(version) is not int:
        raise Rejected(Reason.SCHEMA_VERSION, f"version {version!r}, this release reads {SCHEMA_VERSION}") from None
    if unknown := [name for name in raw if name not in _FIELDS]:
        raise Rejected(Reason.UNKNOWN_FIELD, f"unknown: {', '.join(unknown[:5])}") from None
    if missing := [name for name in _REQUIRED if name not in raw]:
        raise Rejected(Reason.MISSING_FIELD, f"missing: {', '.join(missing)}") from None
    event = raw["event"]
    if isinstance(event, str) and event not in _CODES:
        raise Rejected(Reason.UNKNOWN_EVENT, f"{event[:40]!r} is none of {', '.join(EVENTS)}") from None
    if _below_zero(raw["at_ms"]):
        raise Rejected(Reason.BAD_TIME, f"at_ms {raw['at_ms']} is before 1970") from None
    out_of_range |= _below_zero(raw.get("watch_seconds")) or _below_zero(raw.get("duration_seconds"))
    reason = Reason.BAD_NUMBER if out_of_range else Reason.WRONG_TYPE
    raise Rejected(reason, str(error)) from None


def _below_zero(number: Any) -> bool:
    return isinstance(number, int | float) and number < 0
