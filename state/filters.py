"""What a request wants of the videos in its list: categories, languages, duration, age.

Flows in: a filter and an engine. Flows out: what may be listed, in two steps: by columns, for all rows at once, which may let a few
through that only look alike; and by the catalogue's own record, for those that are about to be listed. Always holds: what is listed
is what the record says.
"""

from dataclasses import dataclass

import numpy as np

from online_models.content import DAY_MS, LAST_DAY, code_of
from state.engine import Engine
from state.expression import ROOM, Expression
from state.types import BoolArray
from topics.catalog import Video


@dataclass(frozen=True)
class Filter:
    """What a video must be; a part that is not set asks nothing. A video that says nothing of what is asked is not listed.

    Attributes
    ----------
    categories, languages : one of these, whatever their case
    min_duration_seconds, max_duration_seconds : inclusive
    published_after_ms : milliseconds since 1970, inclusive
    expression : what else must hold
    """

    categories: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_duration_seconds: float | None = None
    max_duration_seconds: float | None = None
    published_after_ms: int | None = None
    expression: Expression | None = None

    def __bool__(self) -> bool:
        """Whether it asks anything."""
        return self != Filter()

    def narrow(self, engine: Engine, allowed: BoolArray) -> None:
        """Take what does not fit out of `allowed` (bool, by row), as far as columns tell."""
        n, columns = len(allowed), engine.content.columns
        if self.categories:
            codes = [code_of(name) for name in self.categories]
            named = columns["categories"][:n]
            # A full row may have left some out.
            allowed &= np.isin(named, codes).any(axis=1) | named.all(axis=1)
        if self.languages:
            allowed &= np.isin(columns["language"][:n], [code_of(name) for name in self.languages])
        duration = columns["duration"][:n]
        if self.min_duration_seconds is not None:
            allowed &= (duration > 0) & (duration >= np.log1p(self.min_duration_seconds) * (1.0 - ROOM))
        if self.max_duration_seconds is not None:
            allowed &= (duration > 0) & (duration <= np.log1p(self.max_duration_seconds) * (1.0 + ROOM))
        if self.published_after_ms is not None:
            allowed &= columns["published"][:n] > min(self.published_after_ms // DAY_MS, LAST_DAY - 1)
        if self.expression is not None:
            allowed &= self.expression.sides(engine, slice(0, n))[1]

    def admits(self, engine: Engine, row: int) -> bool:
        """Whether the row's record fits; nothing fits that is not described."""
        video = engine.replica.video(row)
        if video is None:
            return not self
        return self._fits(video) and (self.expression is None or self.expression.admits(engine, row))

    def _fits(self, video: Video) -> bool:
        if self.categories:
            own = {name.casefold() for name in video.categories}
            if own.isdisjoint(name.casefold() for name in self.categories):
                return False
        if self.languages and (video.language or "").casefold() not in {name.casefold() for name in self.languages}:
            return False
        # As the record is used elsewhere, 0 seconds are an unknown duration.
        length = video.duration_seconds or None
        if self.min_duration_seconds is not None and (length is None or length < self.min_duration_seconds):
            return False
        if self.max_duration_seconds is not None and (length is None or length > self.max_duration_seconds):
            return False
        if self.published_after_ms is None:
            return True
        return video.published_ms is not None and video.published_ms >= self.published_after_ms


#: Asks nothing.
ANY = Filter()
