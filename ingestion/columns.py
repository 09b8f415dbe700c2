"""CSV and Parquet files as typed columns, with the line number of whatever does not convert.

A path flows in, NumPy and Arrow arrays flow out. CSV cells stay text until a column is asked for with a type: an id
"007" stays "007" and a user called "NA" is a user; only an empty cell is missing.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from ingestion.bad_file import BadFile, BadRow

PARQUET_SUFFIXES: Final = (".parquet", ".pq")
CSV_SUFFIXES: Final = (".csv", ".csv.gz")
JSON_LINES_SUFFIXES: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Tell whether the file's name ends in one of `suffixes`, in either case."""
    return path.name.lower().endswith(suffixes)


class Columns:
    """The columns of one file, converted on request; every method names the line that it cannot convert.

    Parameters
    ----------
    path : a file with one of the CSV or Parquet suffixes

    Raises
    ------
    OSError
        The file is absent or unreadable.
    BadFile, BadRow
        It is not what its suffix says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_csv = _is_csv(path)
        self._table = _read_csv(path) if self.is_csv else _read_parquet(path)
        self.rows: int = self._table.num_rows

    @property
    def names(self) -> list[str]:
        """Names of all columns, in the file's order."""
        return list(self._table.column_names)

    @staticmethod
    def header(path: Path) -> list[str]:
        """Names of a file's columns, read without its rows; errors as the constructor."""
        return _csv_header(path) if _is_csv(path) else _parquet_header(path)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts, values as the file has them: text in CSV."""
        for batch in self._table.to_batches(max_chunksize=4096):
            yield from batch.to_pylist()

    def require(self, *names: str) -> None:
        """Raise `BadFile` unless the file has every column of `names`."""
        if missing := [name for name in names if name not in self.names]:
            raise BadFile(self.path, f"column {', '.join(missing)} is missing; it has {', '.join(self.names)}")

    def bad_row(self, row: int, why: str) -> BadRow:
        """Build the error for row `row` (0 is the first row of data)."""
        return BadRow(self.path, _csv_line(self.path, row + 2) if self.is_csv else row + 1, why)

    def text(self, name: str, *, missing_ok: bool = False) -> Any:
        """Column as `pyarrow.StringArray`, shape (rows,); nulls only with `missing_ok`."""
        return self._cast(name, pa.string(), missing_ok)

    def integers(self, name: str) -> NDArray[np.int64]:
        """Column as int64, shape (rows,); a missing value is an error."""
        column = self._table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ms"), safe=False)
        values: NDArray[np.int64] = self._cast(name, pa.int64(), False, column).to_numpy(zero_copy_only=False)
        return values

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Column as float64, shape (rows,); NaN where missing. In CSV "nan" is an error: missing is empty."""
        array = self._cast(name, pa.float64(), True)
        values: NDArray[np.float64] = array.to_numpy(zero_copy_only=False).astype(np.float64)
        if self.is_csv:
            written = np.flatnonzero(np.isnan(values) & array.is_valid().to_numpy(zero_copy_only=False))
            if written.size:
                raise self.bad_row(int(written[0]), f"{name} must be a number, got 'nan'")
        return values

    def _cast(self, name: str, kind: Any, missing_ok: bool, column: Any = None) -> Any:
        column = self._table[name] if column is None else column
        try:
            array = column.cast(kind)
        except pa.ArrowInvalid:
            row = _first_failure(column, kind)
            raise self.bad_row(row, f"{name} must be {_WORDS[kind]}, got {str(column[row])[:40]!r}") from None
        except pa.ArrowNotImplementedError:
            raise BadFile(self.path, f"column {name} must be {_WORDS[kind]}, it is {column.type}") from None
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=kind)
        if array.null_count and not missing_ok:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise self.bad_row(row, f"{name} is missing")
        return array


_WORDS: Final = {pa.string(): "text", pa.int64(): "a whole number", pa.float64(): "a number"}


def _is_csv(path: Path) -> bool:
    if has_suffix(path, CSV_SUFFIXES):
        return True
    if has_suffix(path, PARQUET_SUFFIXES):
        return False
    known = ", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES))
    raise BadFile(path, f"unknown kind of file, expected one of {known}")


def _parquet_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        try:
            return list(pa.parquet.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(path, f"not a readable Parquet file: {error}") from None


def _read_parquet(path: Path) -> Any:
    with path.open("rb") as file:  # a Python file, so that an absent one is an ordinary OSError
        try:
            return pa.parquet.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(path, f"not a readable Parquet file: {error}") from None


def _read_csv(path: Path) -> Any:
    header = _csv_header(path)
    with open_bytes(path) as file:
        try:
            return pa.csv.read_csv(
                file,
                # one thread: only then does an error carry its row
                read_options=pa.csv.ReadOptions(use_threads=False),
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except (pa.ArrowException, OSError, EOFError) as error:
            why = str(error)
            if "UTF8" in why and (line := _undecodable_line(path)):
                raise BadRow(path, line, "is not UTF-8") from None
            if found := re.search(r"Row #(\d+): ", why):
                raise BadRow(path, _csv_line(path, int(found[1])), why[found.end() :]) from None
            raise BadFile(path, f"not a readable CSV file: {why}") from None


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file to read, through gzip if its name ends in .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open a CSV file for looking at it; bytes that are no UTF-8 are for `_read_csv` to refuse."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace", newline="")


def _undecodable_line(path: Path) -> int | None:
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def _csv_header(path: Path) -> list[str]:
    with _open_text(path) as text:
        try:
            header = next(csv.reader(text), [])
        except (csv.Error, OSError, EOFError) as error:
            raise BadFile(path, f"not a readable CSV file: {error}") from None
    if not header:
        raise BadFile(path, "is empty, expected a line with the names of the columns")
    if len(set(header)) < len(header):
        raise BadFile(path, f"two columns have one name: {', '.join(header)}")
    return header


def _csv_line(path: Path, row: int) -> int:
    """Line on which the `row`-th row starts (1 is the header); blank lines are no rows, quotes may span lines."""
    with _open_text(path) as text:
        reader = csv.reader(text)
        rows = starts_at = 0
        for cells in reader:
            starts_at, previous = reader.line_num, starts_at
            if cells:
                rows += 1
            if rows == row:
                return previous + 1
    return starts_at


def _first_failure(column: Any, kind: Any) -> int:
    """Index of the first value that does not convert, by bisection."""
    low, high = 0, len(column)  # the first failure lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).cast(kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def unknown_values(array: Any, known: list[str]) -> tuple[NDArray[np.int64], int | None]:
    """Map text to positions in `known`.

    Returns
    -------
    positions : int64, shape (n,); -1 where unknown
    first : index of the first unknown value, or None
    """
    positions: NDArray[np.int64] = (
        pc.fill_null(pc.index_in(array, value_set=pa.array(known)), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    bad = np.flatnonzero(positions < 0)
    return positions, int(bad[0]) if bad.size else None
