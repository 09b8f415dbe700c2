"""MovieLens: ratings of films. A rating of 4 or more is a like, of 2 or less a dislike, else a view.

Source: Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from ingestion.columns import Columns
from ingestion.event_table import EventTable, build_event_table
from ingestion.row_hash import hash_numbers
from topics.catalog import Video
from topics.interactions import Interaction, event_code

LIKED: Final = "rating>=4"
"""Label of `EventTable`; the same events as the default rule finds here."""

_NO_GENRES: Final = "(no genres listed)"
_YEAR: Final = re.compile(r"\((\d{4})\)\s*$")


def read_table(path: Path) -> EventTable:
    """Read `ratings.csv` (or Parquet): `userId, movieId, rating, timestamp` (seconds), with the label `rating>=4`.

    Raises
    ------
    BadFile, BadRow
        A column is missing or a value is no rating or time.
    """
    columns = Columns(path)
    columns.require("userId", "movieId", "rating", "timestamp")
    rating = columns.numbers("rating")
    bad = np.flatnonzero(~((rating >= 0) & (rating <= 5)))
    if bad.size:
        raise columns.bad_row(int(bad[0]), f"rating must be from 0 to 5, got {rating[bad[0]]}")
    seconds = columns.integers("timestamp")
    bad = np.flatnonzero((seconds < 0) | (seconds > 2**43))
    if bad.size:
        raise columns.bad_row(int(bad[0]), f"timestamp must be seconds since 1970, got {seconds[bad[0]]}")

    liked = rating >= 4
    codes = np.where(liked, event_code("like"), np.where(rating <= 2, event_code("dislike"), event_code("view")))
    codes = codes.astype(np.uint8)
    values = [columns.integers("userId"), columns.integers("movieId"), (rating * 1000).astype(np.int64), seconds]
    unknown = np.full(columns.rows, np.nan)
    return build_event_table(
        event_ids=hash_numbers(values, np.arange(columns.rows), codes),
        user_ids=columns.text("userId"),
        video_ids=columns.text("movieId"),
        codes=codes,
        at_ms=seconds * 1000,
        watch_seconds=unknown,
        duration_seconds=unknown,
        labels={LIKED: liked},
        rows=columns.rows,
        bad_row=columns.bad_row,
    )


def read_events(path: Path) -> Iterator[Interaction]:
    """Yield the ratings as events by time."""
    return read_table(path).interactions()


def read_videos(path: Path) -> Iterator[tuple[str, Video]]:
    """Yield id and video of `movies.csv`.

    The year in the title becomes a tag and not `published_ms`: it is when the film came out, not when it came here.
    The tags of `tags.csv` are left out: they were given later, and would tell an evaluation the future.
    """
    columns = Columns(path)
    columns.require("movieId", "title", "genres")
    ids = columns.text("movieId").to_pylist()
    titles = columns.text("title", missing_ok=True).to_pylist()
    genres = columns.text("genres", missing_ok=True).to_pylist()
    for video_id, title, genre in zip(ids, titles, genres, strict=True):
        year = _YEAR.search(title or "")
        yield (
            video_id,
            Video(
                title=title or "",
                categories=tuple(word for word in (genre or "").split("|") if word and word != _NO_GENRES),
                tags=(f"year-{year[1]}",) if year else (),
            ),
        )
