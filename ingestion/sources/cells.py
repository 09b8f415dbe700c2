"""What a column of a database, a document or a line of text holds, as the plain value that a record has.

Values of drivers flow in (datetimes, decimals, ObjectIds, text of CSV), JSON's kinds flow out. A time becomes milliseconds since 1970;
one without a zone is UTC.
"""

import datetime
import decimal
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from topics.rejected import Reason, Rejected

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND: Final = datetime.timedelta(milliseconds=1)
_FALSE: Final = frozenset({"", "0", "f", "false", "n", "no", "off"})


def plain(value: Any) -> Any:
    """Any value in JSON's kinds; what has no such kind becomes its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, datetime.date):
        return milliseconds(value)
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None if value.is_nan() else float(value)
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="replace")
    return str(value)


def milliseconds(value: datetime.date) -> int:
    """Milliseconds since 1970 of a time, or of a day's beginning."""
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    return (aware - _EPOCH) // _MILLISECOND


def time_ms(name: str, value: Any) -> Any:
    """A field of milliseconds: as it is, or from a time written as ISO 8601. Raises `Rejected`."""
    if not isinstance(value, str) or value.strip().lstrip("-").isdecimal():
        return value
    try:
        return milliseconds(datetime.datetime.fromisoformat(value.strip()))
    except ValueError:
        raise Rejected(Reason.BAD_TIME, f"{name} is no time: {value[:40]!r}") from None


def words(value: Any) -> Any:
    """A list, also from text: of JSON, or joined by "|"."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return structure(value)
    return [word.strip() for word in value.split("|") if word.strip()]


def structure(value: Any) -> Any:
    """A list or an object, also from text of JSON; text that is none stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return value


def id_text(name: str, value: Any) -> str:
    """An id as text. Raises `Rejected` for what can be none, such as a fraction."""
    if isinstance(value, bool | float | list | dict) or value is None:
        raise Rejected(Reason.BAD_ID, f"{name} must be text or a whole number, got {str(value)[:40]!r}")
    return str(value)


def is_true(value: Any) -> bool:
    """Whether a column that marks deletion does: a time says yes, as do true, 1 and any text but "false" and the like."""
    if isinstance(value, str):
        return value.strip().lower() not in _FALSE
    return value is not None and value is not False and value != 0
