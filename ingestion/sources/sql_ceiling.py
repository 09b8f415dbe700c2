"""How far a table can be read without passing over a transaction that has not committed yet.

A watermark is made when a row is written, and seen when its transaction commits: rows come into sight in another order than that of
their watermarks, and whoever reads up to the greatest one loses those that come later. Two ways against it: PostgreSQL knows below
which transaction all have ended (exact, for a column of type xid8 such as in `db_schema.sql`); elsewhere the greatest watermark is
noted, and read up to only when `lag_s` has passed, in which all transactions that began before must have ended.
"""

import time
from typing import Any, Protocol

import sqlalchemy as sa


class Ceiling(Protocol):
    """What bounds a pass; and how the watermark is compared."""

    def bound(self, connection: sa.Connection, table: sa.TableClause, after: Any) -> sa.ColumnElement[bool] | None:
        """A condition for rows that are settled; None where nothing can be new behind `after`."""

    def literal(self, value: Any) -> Any:
        """A stored watermark as it is compared in SQL."""

    def value(self, found: Any) -> Any:
        """A watermark as it is stored."""


class LagCeiling:
    """Notes the greatest watermark, and waits."""

    def __init__(self, column: sa.ColumnElement[Any], lag_s: float) -> None:
        self._column, self._lag_s = column, lag_s

    def bound(self, connection: sa.Connection, table: sa.TableClause, after: Any) -> sa.ColumnElement[bool] | None:
        """Up to the greatest watermark of `lag_s` ago."""
        greatest = connection.execute(sa.select(sa.func.max(self._column)).select_from(table)).scalar()
        if greatest is None or (self._lag_s == 0 and after is not None and greatest < after):
            return None
        time.sleep(self._lag_s)
        return self._column <= sa.bindparam(None, greatest, type_=sa.types.NullType())

    def literal(self, value: Any) -> Any:
        """Itself."""
        return value

    def value(self, found: Any) -> Any:
        """Itself."""
        return found


class _TransactionId(sa.types.UserDefinedType[Any]):
    """PostgreSQL's xid8."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name in SQL."""
        return "xid8"


class SnapshotCeiling:
    """Asks PostgreSQL which transactions have all ended: those before the oldest that runs."""

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        self._column = column

    def bound(self, connection: sa.Connection, table: sa.TableClause, after: Any) -> sa.ColumnElement[bool] | None:  # noqa: ARG002
        """Below the oldest running transaction of now."""
        oldest = connection.execute(
            sa.text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)")
        ).scalar_one()
        below: sa.ColumnElement[bool] = self._column < self.literal(oldest)
        return below

    def literal(self, value: Any) -> Any:
        """As xid8, which drivers know as text alone."""
        return sa.cast(sa.literal(str(value), sa.types.Text()), _TransactionId())

    def value(self, found: Any) -> Any:
        """As a number."""
        return int(found)


def is_transaction_id(connection: sa.Connection, table: str, column: str) -> bool:
    """Whether a column of PostgreSQL is of type xid8."""
    if connection.dialect.name != "postgresql":
        return False
    found = connection.execute(
        sa.text(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(:table) AND attname = :column"
        ),
        {"table": table, "column": column},
    ).scalar()
    return bool(found == "xid8")
