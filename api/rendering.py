"""Rows of the engine as they travel."""

from collections.abc import Sequence

from api.schemas import Item, Named, Reason
from state.engine import Engine
from state.lists import Served
from topics.catalog import Video


def items_of(engine: Engine, served: Sequence[Served]) -> list[Item]:
    """Places of a list."""
    replica = engine.replica
    listed = []
    for place in served:
        reasons = [Reason(r.kind, r.text, None if r.row is None else replica.ids[r.row]) for r in place.reasons]
        video = replica.video(place.row)
        listed.append(Item(replica.ids[place.row] or "", round(place.score, 6), reasons, title_of(video)))
    return listed


def named(engine: Engine, rows: Sequence[int]) -> list[Named]:
    """Videos by their rows."""
    return [Named(engine.replica.ids[row] or "", title_of(engine.replica.video(row))) for row in rows]


def title_of(video: Video | None) -> str | None:
    """Its title, if it has any."""
    return video.title if video is not None and video.title else None
