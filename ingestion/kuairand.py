"""KuaiRand: exposures of short videos in the Kuaishou app, what was played and which buttons were pressed.

A row becomes an impression, a watch if anything was played, and one event a flag, all at its `time_ms` and in that
order. `date` and `hourmin` disagree with `time_ms` and are ignored, except as values of the row's hash.

Source: Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingestion.bad_file import BadRow
from ingestion.columns import Columns
from ingestion.event_table import EventTable, build_event_table
from ingestion.row_hash import hash_numbers
from topics.catalog import User, Video
from topics.interactions import Event, Interaction, event_code

LONG_VIEW: Final = "long_view"
"""Label of `EventTable`: the watch of a row that the file itself calls a long view."""

CLICK: Final = "click"
"""Label of `EventTable`: the impression of a row that the file calls a click, a watch of at least 7 s or so."""

_FLAGS: Final[tuple[tuple[str, Event], ...]] = (  # the order of a row's events, after impression and watch
    ("is_like", "like"),
    ("is_follow", "follow"),
    ("is_comment", "comment"),
    ("is_forward", "share"),
    ("is_hate", "dislike"),
)
_REQUIRED: Final[tuple[str, ...]] = ("user_id", "video_id", "time_ms", "play_time_ms", "duration_ms", "long_view")
_HASHED: Final[tuple[str, ...]] = (  # every column of the log, in the order of the published files
    *("user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment"),
    *("is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time"),
    *("is_profile_enter", "is_rand", "tab"),
)
_RANGES: Final[tuple[str, ...]] = (
    *("follow_user_num_range", "fans_user_num_range", "register_days_range", "is_video_author"),
)
_RANGES_OF_SOME: Final[tuple[str, ...]] = ("friend_user_num_range", "is_live_streamer")
ENCODED_MOST: Final = 64
_MISSING: Final = np.iinfo(np.int64).min
_CHINA: Final = timedelta(hours=8)  # upload dates are local


def read_table(path: Path) -> EventTable:
    """Read a log (`log_*.csv`, or the same columns in Parquet) with the labels `long_view` and `click`.

    Raises
    ------
    BadFile, BadRow
        A column is missing or a value is not a whole number.
    """
    columns = Columns(path)
    columns.require(*_REQUIRED, *(flag for flag, _ in _FLAGS))
    values = {name: _whole(columns, name) for name in _HASHED if name in columns.names}
    for name in set(_REQUIRED) - {"duration_ms"}:
        _require(columns, name, values[name])

    played = values["play_time_ms"] > 0
    chosen: list[tuple[Event, NDArray[np.bool_]]] = [("impression", np.ones(columns.rows, np.bool_)), ("watch", played)]
    chosen += [(event, values[flag] == 1) for flag, event in _FLAGS]
    row = np.concatenate([np.flatnonzero(mask) for _, mask in chosen]).astype(np.int64)
    code = np.concatenate([np.full(int(mask.sum()), event_code(event), np.uint8) for event, mask in chosen])
    # row by row, and within a row as chosen: stable, so the order of concatenation is kept
    order = np.argsort(row, kind="stable")
    row, code = row[order], code[order]

    watch = code == event_code("watch")
    duration_s = np.where(values["duration_ms"] > 0, values["duration_ms"] / 1000, np.nan)  # 0 means unknown

    labels = {LONG_VIEW: watch & (values["long_view"][row] == 1)}
    if "is_click" in values:
        labels[CLICK] = (code == event_code("impression")) & (values["is_click"][row] == 1)

    def bad_row(event: int, why: str) -> BadRow:
        return columns.bad_row(int(row[event]), why)

    return build_event_table(
        event_ids=hash_numbers(list(values.values()), row, code),
        user_ids=columns.text("user_id").take(row),
        video_ids=columns.text("video_id").take(row),
        codes=code,
        at_ms=values["time_ms"][row],
        watch_seconds=np.where(watch, values["play_time_ms"][row] / 1000, np.nan),
        duration_seconds=np.where(watch, duration_s[row], np.nan),
        labels=labels,
        rows=columns.rows,
        bad_row=bad_row,
    )


def read_events(path: Path) -> Iterator[Interaction]:
    """Yield the log's events by time."""
    return read_table(path).interactions()


def read_videos(path: Path) -> Iterator[tuple[str, Video]]:
    """Yield id and video of `video_features_basic_*.csv`. There are no titles: category ids and the author must do."""
    columns = Columns(path)
    columns.require("video_id", "author_id", "upload_dt", "upload_type", "video_duration", "music_id", "tag")
    cells = [
        columns.text(name, missing_ok=name != "video_id").to_pylist()
        for name in ("video_id", "author_id", "upload_dt", "upload_type", "music_id", "tag")
    ]
    durations_ms = columns.numbers("video_duration").tolist()
    for row, (video_id, author, uploaded, upload_type, music, tag) in enumerate(zip(*cells, strict=True)):
        try:
            published_ms = None if uploaded is None else _midnight_ms(uploaded)
        except ValueError:
            raise columns.bad_row(row, f"upload_dt must be a date, got {uploaded[:40]!r}") from None
        duration_ms = durations_ms[row]
        yield (
            video_id,
            Video(
                categories=tuple(f"category-{number}" for number in (tag or "").split(",") if number),
                tags=tuple(word for word in (upload_type, music and f"music-{music}") if word),
                author=author and f"author-{author}",
                duration_seconds=duration_ms / 1000 if duration_ms > 0 else None,
                published_ms=published_ms,
            ),
        )


def read_users(path: Path) -> Iterator[tuple[str, User]]:
    """Yield id and user of `user_features_*.csv`: how active they are, ranges of what they follow, and encoded features.

    Of the encoded features, whose meaning is not published, those of at most ENCODED_MOST values in the file are taken.
    """
    columns = Columns(path)
    columns.require("user_id", "user_active_degree", *_RANGES)
    encoded = [name for name in columns.names if name.startswith("onehot_feat")]
    few = [name for name in encoded if pc.count_distinct(columns.text(name, missing_ok=True)).as_py() <= ENCODED_MOST]
    names = (*_RANGES, *(name for name in _RANGES_OF_SOME if name in columns.names), *few)
    ids = columns.text("user_id").to_pylist()
    active = columns.text("user_active_degree", missing_ok=True).to_pylist()
    attributes = [columns.text(name, missing_ok=True).to_pylist() for name in names]
    for user_id, degree, *cells in zip(ids, active, *attributes, strict=True):
        known = {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
        yield user_id, User(segments=(degree,) if degree else (), attributes=known)


def _whole(columns: Columns, name: str) -> NDArray[np.int64]:
    """Column as int64, missing values as the smallest number: equal rows must hash alike, missing ones too."""
    numbers = columns.numbers(name)
    missing = np.isnan(numbers)
    fractional = np.flatnonzero(~missing & ((numbers % 1 != 0) | (np.abs(numbers) > 2**53)))
    if fractional.size:
        row = int(fractional[0])
        raise columns.bad_row(row, f"{name} must be a whole number, got {numbers[row]}")
    return np.where(missing, _MISSING, np.where(missing, 0, numbers).astype(np.int64))


def _require(columns: Columns, name: str, values: NDArray[np.int64]) -> None:
    bad = np.flatnonzero(values < 0)
    if bad.size:
        row = int(bad[0])
        why = "is missing" if values[row] == _MISSING else f"must not be negative, got {values[row]}"
        raise columns.bad_row(row, f"{name} {why}")


def _midnight_ms(text: str) -> int:
    day = datetime.combine(date.fromisoformat(text[:10]), datetime.min.time(), tzinfo=UTC)
    return int((day - _CHINA).timestamp() * 1000)
