"""A table or view of a SQL database, read in the order of a watermark and a key.

Flows in: rows with a watermark (a column that grows with every change) beyond the stored one, or with equal watermark and a greater
key. Flows out: batches in that order. Always holds: no more than what is settled is read, so that a transaction which commits late is
not passed over (`sql_ceiling`); rows of equal watermark are told apart by their keys, wherever a batch ends.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from ingestion.sources.batch import Batch, Positions, Row, SourceError, SourceUnavailable
from ingestion.sources.sql_ceiling import Ceiling, LagCeiling, SnapshotCeiling, is_transaction_id
from ingestion.sources.sql_value import from_json, to_json

BATCH_ROWS: Final = 1_000
#: Columns that are taken as the watermark where none is named: of the schemas that come with Headrace, and as many call it.
WATERMARKS: Final = ("changed", "updated_at")
CONNECT_S: Final = 10


class SqlSource:
    """One table.

    Parameters
    ----------
    url : of SQLAlchemy: PostgreSQL (psycopg), SQLite, or any database whose driver is installed
    table : or view, `schema.table` too
    watermark : column that grows with every change; by default the first of `WATERMARKS` that the table has
    by_key : there is no watermark: rows never change, and the key grows; or all are read each time
    key : columns that tell rows apart; by default the table's primary key
    id_columns : read for a comparison of keys, beside the key
    lag_s : the longest time from a watermark's making to its commit; not needed where the database itself knows what is settled
    """

    def __init__(
        self,
        url: str,
        table: str,
        *,
        watermark: str | None = None,
        by_key: bool = False,
        key: Sequence[str] = (),
        id_columns: Sequence[str] = (),
        lag_s: float = 5.0,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        try:
            self._url = sa.engine.make_url(url)
            if self._url.drivername in ("postgresql", "postgres"):
                self._url = self._url.set(drivername="postgresql+psycopg")
            self._engine = sa.create_engine(self._url, pool_pre_ping=True, **_options(self._url))
        except (SQLAlchemyError, ImportError) as error:
            raise SourceError(f"the database's URL: {error}") from error
        self._schema, _, self._name = table.rpartition(".")
        self._batch_rows = batch_rows
        try:
            with self._asked():
                self._look_at(table, watermark, by_key, key, id_columns, lag_s)
        except BaseException:
            self.close()
            raise
        self._nulls_looked_for = False

    @property
    def identity(self) -> Mapping[str, str]:
        """Database, table and order; neither user nor password, which may change."""
        place = self._url.set(username=None, password=None, query={})
        where = place.render_as_string() if place.host is None else f"{place.host}/{place.database}"
        return {"database": where, "table": str(self._table.fullname), "order": ", ".join(self._order)}

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """Rows beyond the position, in order, up to what is settled."""
        with self._asked():
            self._look_for_nulls()
            after = positions.get("")
            values = None if after is None else [from_json(each) for each in after]
            with self._engine.connect() as connection:
                bound = self._ceiling.bound(connection, self._table, None if values is None else values[0])
                if bound is None:
                    return
                while True:
                    rows = list(connection.execute(self._page(values, bound)).mappings())
                    if not rows:
                        return
                    values = [self._ceiling.value(rows[-1][self._order[0]]), *(rows[-1][c] for c in self._order[1:])]
                    yield Batch([self._row(row) for row in rows], {"": [to_json(each) for each in values]})
                    if len(rows) < self._batch_rows:
                        return

    def present(self) -> Iterator[Row]:
        """All rows, by key alone."""
        with self._asked(), self._engine.connect() as connection:
            after: list[Any] | None = None
            columns = [self._table.c[name] for name in self._id_columns]
            order = [self._table.c[name] for name in self._key]
            while True:
                page = sa.select(*columns).order_by(*order).limit(self._batch_rows)
                if after is not None:
                    page = page.where(_beyond(order, after))
                rows = list(connection.execute(page).mappings())
                for row in rows:
                    yield self._row(row)
                if len(rows) < self._batch_rows:
                    return
                after = [rows[-1][name] for name in self._key]

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close connections."""
        self._engine.dispose()

    def _look_at(
        self,
        table: str,
        watermark: str | None,
        by_key: bool,
        key: Sequence[str],
        id_columns: Sequence[str],
        lag_s: float,
    ) -> None:
        """Find out what the table has, and in what order it can be read."""
        names, primary, nullable = self._described(table)
        self._key = list(key) or primary
        if not self._key:
            raise SourceError(f"{table} has no primary key: name columns that tell its rows apart with --key")
        if watermark is None and not by_key:
            watermark = next((name for name in WATERMARKS if name in names), None)
            if watermark is None:
                raise SourceError(
                    f"{table} has no column {' or '.join(WATERMARKS)}: name one that grows with every change (--watermark),"
                    " or say that rows never change and their key grows (--by-key), or have all rows read each time (--full)"
                )
        wanted = [*self._key, *([watermark] if watermark is not None else ())]
        if missing := [name for name in wanted if name not in names]:
            raise SourceError(f"{table} has no column {', '.join(missing)}; it has {', '.join(names)}")
        self._table = sa.table(self._name, *(sa.column(name) for name in names), schema=self._schema or None)
        self._order = [*([watermark] if watermark is not None else ()), *self._key]
        self._id_columns = [*self._key, *(name for name in id_columns if name in names and name not in self._key)]
        self._nullable = self._order[0] in nullable
        self._ceiling = self._make_ceiling(lag_s)

    def _page(self, after: list[Any] | None, bound: sa.ColumnElement[bool]) -> sa.Select[Any]:
        order = [self._table.c[name] for name in self._order]
        page = sa.select(self._table).where(bound).order_by(*order).limit(self._batch_rows)
        if after is None:
            return page
        return page.where(_beyond(order, [self._ceiling.literal(after[0]), *after[1:]]))

    def _row(self, row: Mapping[Any, Any]) -> Row:
        return Row("/".join(str(row[name]) for name in self._key), dict(row))

    def _described(self, table: str) -> tuple[list[str], list[str], set[str]]:
        """Names of the columns, those of the primary key, and those that may be null."""
        inspector = sa.inspect(self._engine)
        try:
            columns = _quietly(lambda: inspector.get_columns(self._name, schema=self._schema or None))
        except NoSuchTableError:
            there = ", ".join([*inspector.get_table_names(), *inspector.get_view_names()]) or "none"
            raise SourceError(f"the database has no table {table}; it has {there}") from None
        primary = inspector.get_pk_constraint(self._name, schema=self._schema or None)["constrained_columns"]
        return [each["name"] for each in columns], primary, {each["name"] for each in columns if each["nullable"]}

    def _make_ceiling(self, lag_s: float) -> Ceiling:
        column = self._table.c[self._order[0]]
        if self._engine.dialect.name == "sqlite":
            lag_s = 0.0  # one transaction writes at a time, and readers see all of it or nothing
        with self._engine.connect() as connection:
            if is_transaction_id(connection, str(self._table.fullname), self._order[0]):
                return SnapshotCeiling(column)
        return LagCeiling(column, lag_s)

    def _look_for_nulls(self) -> None:
        """Rows without a watermark would never be read, and nobody would be told."""
        if self._nulls_looked_for or not self._nullable:
            return
        first = self._table.c[self._order[0]]
        with self._engine.connect() as connection:
            nulls = connection.execute(
                sa.select(sa.func.count()).select_from(self._table).where(first.is_(None))
            ).scalar()
        if nulls:
            raise SourceError(
                f"{nulls} rows of {self._table.fullname} have no {self._order[0]}, and so no place in its order: fill it, or name"
                " another column with --watermark"
            )
        self._nulls_looked_for = True

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            text = " ".join(str(error.orig).split())
            if isinstance(error, sa.exc.ProgrammingError | sa.exc.DataError):
                raise SourceError(f"the database refuses: {text}") from error
            raise SourceUnavailable(f"the database does not answer as it should: {text}") from error
        except SQLAlchemyError as error:
            raise SourceError(f"the database cannot be read: {error}") from error


def _beyond(order: Sequence[sa.ColumnElement[Any]], after: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Rows behind `after` in the order: a comparison of whole rows, for which an index serves."""
    values = [
        value if isinstance(value, sa.ColumnElement) else sa.bindparam(None, value, type_=sa.types.NullType())
        for value in after
    ]
    if len(order) == 1:
        return order[0] > values[0]
    return sa.tuple_(*order) > sa.tuple_(*values)


def _options(url: sa.URL) -> dict[str, Any]:
    # Each page is a snapshot of its own: one for hours would keep the database from cleaning up.
    autocommit = (
        {"isolation_level": "AUTOCOMMIT"} if url.get_backend_name() in ("postgresql", "mysql", "mariadb") else {}
    )
    return autocommit | (
        {"connect_args": {"connect_timeout": CONNECT_S}} if url.get_backend_name() == "postgresql" else {}
    )


def _quietly(described: Any) -> Any:
    """Ask for columns without SQLAlchemy's warning of a type that it has no name for: values come from the driver as they are."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        return described()
