"""Watermarks and keys of SQL databases as JSON, and back with their types: `{"datetime": "..."}` and the like."""

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any, Final

from ingestion.sources.batch import SourceError

_READ: Final[dict[str, Callable[[str], Any]]] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
}


def to_json(value: Any) -> Any:
    """What can be stored of a watermark or a key. Raises SourceError for a type that has no place in an order."""
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime.datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if isinstance(value, decimal.Decimal):
        return {"decimal": str(value)}
    if isinstance(value, uuid.UUID):
        return {"uuid": str(value)}
    raise SourceError(
        f"{value!r} is of type {type(value).__name__}, which can be no watermark and no key: choose another column"
    )


def from_json(value: Any) -> Any:
    """The value that `to_json` has stored."""
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return _READ[kind](text)
    return value
