"""What a request wants of the videos in its list: categories, languages, duration, age.

Flows in: a filter and an engine. Flows out: what may be listed, in two steps: by columns, for all rows at once, which may let a few
through that only look alike; and by the catalogue's own record, for those that are about to be listed. Always holds: what is listed
is what the record says; of a video's categories the first `CATEGORIES` can be asked for.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from online_models.content import CATEGORIES, DAY_MS, LAST_DAY, code_of
from state.engine import Engine
from state.types import BoolArray
from topics.catalog import Video

#: Durations are kept as float32 logarithms: by columns they are compared with room for that.
ROOM = 1e-5


@dataclass(frozen=True)
class Filter:
    """What a video must be; a part that is not set asks nothing. A video that says nothing of what is asked is not listed.

    Attributes
    ----------
    categories, languages : one of these, whatever their case
    min_duration_seconds, max_duration_seconds : inclusive
    published_after_ms : milliseconds since 1970, inclusive
    """

    categories: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_duration_seconds: float | None = None
    max_duration_seconds: float | None = None
    published_after_ms: int | None = None

    def __bool__(self) -> bool:
        """Whether it asks anything."""
        return self != Filter()

    def narrow(self, engine: Engine, allowed: BoolArray) -> None:
        """Take what does not fit out of `allowed` (bool, by row), as far as columns tell."""
        n, columns = len(allowed), engine.content.columns
        if self.categories:
            codes = [code_of(name) for name in self.categories]
            allowed &= np.isin(columns["categories"][:n], codes).any(axis=1)
        if self.languages:
            allowed &= np.isin(columns["language"][:n], [code_of(name) for name in self.languages])
        duration = columns["duration"][:n]
        if self.min_duration_seconds is not None:
            allowed &= (duration > 0) & (duration >= np.log1p(self.min_duration_seconds) * (1.0 - ROOM))
        if self.max_duration_seconds is not None:
            allowed &= (duration > 0) & (duration <= np.log1p(self.max_duration_seconds) * (1.0 + ROOM))
        if self.published_after_ms is not None:
            allowed &= columns["published"][:n] > min(self.published_after_ms // DAY_MS, LAST_DAY - 1)

    def admits(self, video: Video | None) -> bool:
        """Whether the record fits; nothing fits that is not described."""
        if video is None:
            return not self
        if self.categories:
            own = {name.casefold() for name in islice(video.categories, CATEGORIES)}
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
