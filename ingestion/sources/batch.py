"""What every source yields, and what it must be able to say of itself.

A source reads on from the positions that were stored for it and yields batches: rows, and the positions behind them. `pull` commits
both in one transaction of Kafka, so a source never remembers anything itself. Always holds: whatever is yielded before a position is
not yielded again from it, and whatever is there and was not yielded before it, is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from topics.rejected import Rejected

Positions = dict[str, Any]
"""By a name of the source's choice, what JSON can hold; a source in one piece has the one name `""`."""


class SourceError(RuntimeError):
    """A source cannot be read as asked; the message says what to change. Trying again is no use."""


class SourceUnavailable(SourceError):
    """A source does not answer now. Nothing is lost: the same command goes on from the stored position."""


class Row(NamedTuple):
    """One row, document or item.

    Attributes
    ----------
    key : what tells it from the others, as text; "" where nothing does
    values : by column; what JSON, BSON or a database driver makes of them
    deleted : the source says that it is gone
    place : where it stands, for whoever looks into a dead letter, where that is not its key
    """

    key: str
    values: Mapping[str, Any]
    deleted: bool = False
    place: str = ""


class Unreadable(NamedTuple):
    """What stands where a row should be."""

    place: str
    raw: bytes
    why: Rejected


class Batch(NamedTuple):
    """Rows, and what is stored together with them; None instead of a position removes it."""

    rows: Sequence[Row | Unreadable]
    positions: Mapping[str, Any]


class Source(Protocol):
    """A database table, a collection, a feed or a folder."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What its positions mean: those of another identity are none of its own."""

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """Read from `positions`, which is not changed, to what is there now.

        Raises
        ------
        SourceError, SourceUnavailable
            What was yielded before stays right.
        """

    def present(self) -> Iterator[Row]:
        """All rows that are there now, with the columns at least that make their ids. Raises as `batches`."""

    def wait(self, seconds: float) -> None:
        """Return when something may be new, or after `seconds`."""

    def close(self) -> None:
        """Close connections."""
