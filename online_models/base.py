"""What every item model is: columns of rows, and the few operations that the state layer needs on them.

A model owns plain arrays with one row an item. Row numbers are given by the caller, dense from 0; so is the clock, in
ticks (positive events of the whole stream, or event time converted to them). A model reads no clock and no
environment and holds no random state. Reads never write.

Learning may have two halves, because a user and an item may belong to different workers: the user's side derives what
events say (pure, `additions`), the item's owner adds it (`apply`). `learn_one` does all of it for one event; the
stream uses each model's batch form.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

BoolArray: TypeAlias = NDArray[np.bool_]
Float32Array: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]
Int8Array: TypeAlias = NDArray[np.int8]
Int32Array: TypeAlias = NDArray[np.int32]
Int64Array: TypeAlias = NDArray[np.int64]
UInt8Array: TypeAlias = NDArray[np.uint8]
UInt16Array: TypeAlias = NDArray[np.uint16]
UInt64Array: TypeAlias = NDArray[np.uint64]
Column: TypeAlias = NDArray[Any]

HISTORY = 20
"""Items of a user's history that models look at. Longer histories change no score."""

FACTORS = 32
"""Width k of user and item vectors in `sequential_mf`."""

SEGMENT_WORDS = 2
"""64-bit words of a user's segments: one bit for each bucket that one of the user's words is hashed to."""

EMPTY = -1
"""A history place or neighbour slot that holds no row."""


class ModelError(ValueError):
    """A model was given what it cannot use."""


NO_SEGMENTS: UInt64Array = np.zeros(SEGMENT_WORDS, np.uint64)
NO_SEGMENTS.flags.writeable = False


class Behaviour(NamedTuple):
    """How a user has reacted so far, before what is predicted.

    Attributes
    ----------
    tries, positives, likes, watches : how often something was shown to them, and what followed
    idle_s : seconds since their last event, negative if there was none
    """

    tries: float = 0.0
    positives: float = 0.0
    likes: float = 0.0
    watches: float = 0.0
    idle_s: float = -1.0


class Context(NamedTuple):
    """What scoring knows of a user.

    Attributes
    ----------
    history : int32, shape (h,), h <= 20; rows, newest first, no padding
    p : float32, shape (32,); the user's own vector
    ticks : the time for which to score
    passed : int32, shape (h,), h <= 8; rows that the user was shown and went on from without liking them, newest first
    behaviour : how the user has reacted so far
    segments : uint64, shape (SEGMENT_WORDS,); bits of the user's segments, 0 where nothing is known of them
    """

    history: Int32Array
    p: Float32Array
    ticks: float
    passed: Int32Array = np.empty(0, np.int32)
    behaviour: Behaviour = Behaviour()
    segments: UInt64Array = NO_SEGMENTS


@dataclass(frozen=True)
class ColumnSpec:
    """One column: its type, the shape of a row, and the value that stands for "nothing learned"."""

    dtype: Any
    shape: tuple[int, ...] = ()
    prior: float = 0

    def rows(self, n: int) -> Column:
        """Make `n` rows that hold the prior."""
        if self.prior == 0:
            # Takes memory page by page, as it is written.
            return np.zeros((n, *self.shape), self.dtype)
        return np.full((n, *self.shape), self.prior, dtype=self.dtype)


class ItemModel(ABC):
    """Base of all item models.

    Attributes
    ----------
    columns : name to array; the leading dimension is the capacity. `resize` replaces the arrays: keep no reference.
    """

    name: ClassVar[str]
    """Unique and stable: it is part of stored keys."""
    references: ClassVar[frozenset[str]] = frozenset()
    """Names of int32 columns whose values are row numbers (`EMPTY` = none): whoever renumbers rows maps these too."""

    def __init__(self, capacity: int, specs: dict[str, ColumnSpec]) -> None:
        if capacity < 0:
            raise ModelError(f"capacity must not be negative, got {capacity}")
        self._specs = specs
        self.columns: dict[str, Column] = {name: spec.rows(capacity) for name, spec in specs.items()}

    @property
    def capacity(self) -> int:
        """Rows that exist; row numbers are below it."""
        return len(next(iter(self.columns.values())))

    def resize(self, capacity: int) -> None:
        """Give every column `capacity` rows. New ones hold the prior; cut ones are forgotten first."""
        if capacity < 0:
            raise ModelError(f"capacity must not be negative, got {capacity}")
        kept = min(capacity, self.capacity)
        if capacity < self.capacity:
            self.forget(np.arange(capacity, self.capacity, dtype=np.int32))
        for name, spec in self._specs.items():
            column = spec.rows(capacity)
            column[:kept] = self.columns[name][:kept]
            self.columns[name] = column

    def forget(self, rows: Int32Array) -> None:
        """Put `rows` (int32, shape (m,)) back to the prior and drop every reference to them."""
        for name, spec in self._specs.items():
            self.columns[name][rows] = spec.prior

    def admit(self, rows: Int32Array, ids: UInt64Array) -> None:  # noqa: B027 (most models start from the prior)
        """Prepare `rows` (int32, shape (m,)) for the items with the 64-bit `ids` (uint64, shape (m,)).

        The rows are new or were forgotten: they hold the prior, and nothing refers to them.
        """

    def restore(self, columns: dict[str, Column]) -> None:
        """Replace all columns by copies of `columns`.

        Raises
        ------
        ModelError
            A column is missing, unknown, or has another dtype, row shape or length than the others.
        """
        if columns.keys() != self._specs.keys():
            raise ModelError(f"{self.name}: expected columns {sorted(self._specs)}, got {sorted(columns)}")
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise ModelError(f"{self.name}: columns of different lengths {sorted(lengths)}")
        for name, spec in self._specs.items():
            found = columns[name]
            if found.dtype != np.dtype(spec.dtype) or found.shape[1:] != spec.shape:
                raise ModelError(
                    f"{self.name}.{name}: expected {np.dtype(spec.dtype)} rows of shape {spec.shape}, "
                    f"got {found.dtype} of {found.shape[1:]}; was it written by another version?"
                )
        self.columns = {name: np.array(columns[name], order="C") for name in self._specs}

    @abstractmethod
    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score `rows` for a user; pure.

        Parameters
        ----------
        rows : int32, shape (n,); below the capacity

        Returns
        -------
        float32, shape (n,), in input order; higher is better, comparable within one call only.
        """

    @abstractmethod
    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Learn that the user of `context` (as it was before the event) chose `row` at `ticks`."""


FAULTS = (
    "",
    "a row number is outside the columns",
    "ticks must be finite",
    "weights must be finite and above 0",
    "arrays differ in length",
)
"""What the numbers that learning kernels return mean; 0 is success."""


def accepted(fault: int) -> None:
    """Raise `ModelError` for a kernel's fault number. Kernels check first: a refused batch changed nothing."""
    if fault:
        raise ModelError(FAULTS[fault])
