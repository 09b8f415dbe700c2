"""Events of a file in columns, ordered by event time: what every reader returns and the evaluator works on.

Columns flow in unsorted and unchecked from a reader; a sorted `EventTable` flows out, of which every event passes
`topics.interactions.encode`. Memory: about 150 bytes an event; files are read whole, as they must be sorted.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestion.bad_file import BadRow
from topics.ids import MAX_ID_BYTES
from topics.interactions import EVENTS, Interaction, event_code
from topics.signals import DEFAULT_SIGNALS, SignalTable

DEFAULT_RULE: Final = "default"
LATEST_MS: Final = 2**53  # beyond it a number is no time at all, and not exact as a float
_CHUNK = 65_536  # events made into Python objects at once, so that a large file is not held twice


class UnknownRule(ValueError):
    """The rule for what is positive is none that the file supports; the message lists them."""


class NothingPositive(ValueError):
    """A log without positives cannot be evaluated."""


@dataclass(frozen=True)
class EventTable:
    """Events of one file, ordered by `at_ms`, ties in the file's order.

    Attributes
    ----------
    event_ids, user_ids, video_ids : pyarrow.StringArray, shape (n,)
    codes : uint8, shape (n,); positions in `topics.interactions.EVENTS`
    at_ms : int64, shape (n,)
    watch_seconds, duration_seconds : float64, shape (n,); NaN where unknown
    labels : what the file itself calls positive, by name; bool, shape (n,)
    rows : rows of the file, of which one may be several events
    """

    event_ids: Any
    user_ids: Any
    video_ids: Any
    codes: NDArray[np.uint8]
    at_ms: NDArray[np.int64]
    watch_seconds: NDArray[np.float64]
    duration_seconds: NDArray[np.float64]
    labels: Mapping[str, NDArray[np.bool_]]
    rows: int

    def __len__(self) -> int:
        return len(self.codes)

    def positive(self, rule: str = DEFAULT_RULE, signals: SignalTable = DEFAULT_SIGNALS) -> NDArray[np.bool_]:
        """Tell which events are positive.

        Parameters
        ----------
        rule : "default" (`topics.signals`), one of `labels`, or a list such as "like,share,long_watch" of events and
            of "long_watch", a watch that is positive by default
        signals : what is positive by default

        Returns
        -------
        bool, shape (n,)

        Raises
        ------
        UnknownRule
            Names the word that is unknown, and those that are known.
        """
        default = signals.signals(self.codes, self.watch_seconds, self.duration_seconds).positive
        if rule == DEFAULT_RULE:
            return default
        if rule in self.labels:
            return self.labels[rule]
        found = np.zeros(len(self), dtype=np.bool_)
        for word in rule.split(","):
            if word == "long_watch":
                found |= default & (self.codes == event_code("watch"))
            elif word in EVENTS:
                found |= self.codes == event_code(word)
            else:
                known = ", ".join((DEFAULT_RULE, *self.labels))
                raise UnknownRule(
                    f"no rule {word!r}: expected {known}, or a comma-separated list of long_watch, {', '.join(EVENTS)}"
                )
        return found

    def interactions(self, start: int = 0, stop: int | None = None) -> Iterator[Interaction]:
        """Yield events `start` to `stop` as records for the topic, in order."""
        stop = len(self) if stop is None else min(stop, len(self))
        for low in range(start, stop, _CHUNK):
            part = slice(low, min(low + _CHUNK, stop))
            columns = (
                self.event_ids[part].to_pylist(),
                self.user_ids[part].to_pylist(),
                self.video_ids[part].to_pylist(),
                [EVENTS[code] for code in self.codes[part].tolist()],
                self.at_ms[part].tolist(),
                _optional(self.watch_seconds[part]),
                _optional(self.duration_seconds[part]),
            )
            for event_id, user_id, video_id, event, at_ms, watch_s, duration_s in zip(*columns, strict=True):
                yield Interaction(event_id, user_id, video_id, event, at_ms, watch_s, duration_s)


def build_event_table(
    *,
    event_ids: Any,
    user_ids: Any,
    video_ids: Any,
    codes: NDArray[np.uint8],
    at_ms: NDArray[np.int64],
    watch_seconds: NDArray[np.float64],
    duration_seconds: NDArray[np.float64],
    rows: int,
    bad_row: Callable[[int, str], BadRow],
    labels: Mapping[str, NDArray[np.bool_]] | None = None,
) -> EventTable:
    """Check columns in the file's order (see `EventTable` for types) and sort them by time, ties as they come.

    Parameters
    ----------
    bad_row : makes the error for event number i and what is wrong with it
    """
    for name, ids in (("event_id", event_ids), ("user_id", user_ids), ("video_id", video_ids)):
        size_bytes = pc.binary_length(ids).to_numpy(zero_copy_only=False)
        _refuse(~((size_bytes >= 1) & (size_bytes <= MAX_ID_BYTES)), ids, name, f"1 to {MAX_ID_BYTES} bytes", bad_row)
    _refuse((at_ms < 0) | (at_ms > LATEST_MS), at_ms, "time", "milliseconds since 1970", bad_row)
    for name, seconds in (("watch time", watch_seconds), ("duration", duration_seconds)):
        _refuse((seconds < 0) | np.isinf(seconds), seconds, name, "finite and not negative", bad_row)
    order = np.argsort(at_ms, kind="stable")
    taken = pa.array(order)
    return EventTable(
        event_ids.take(taken),
        user_ids.take(taken),
        video_ids.take(taken),
        codes[order],
        at_ms[order],
        watch_seconds[order],
        duration_seconds[order],
        {name: label[order] for name, label in (labels or {}).items()},
        rows,
    )


def _refuse(
    bad: NDArray[np.bool_], values: Any, name: str, expected: str, bad_row: Callable[[int, str], BadRow]
) -> None:
    found = np.flatnonzero(bad)
    if found.size:
        row = int(found[0])
        raise bad_row(row, f"{name} must be {expected}, got {str(values[row])[:40]!r}")


def _optional(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
