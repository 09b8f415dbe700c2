"""Rows of the engine as they travel."""

from collections.abc import Sequence

from api.schemas import Item, Named, Reason
from state.engine import Engine
from state.lists import Served, Why
from state.replica import Replica
from topics.catalog import Video


def items_of(engine: Engine, served: Sequence[Served]) -> list[Item]:
    """Places of a list."""
    replica = engine.replica
    listed = []
    for place in served:
        reasons = [_reason(replica, why) for why in place.reasons]
        video = replica.video(place.row)
        length = None if video is None else video.duration_seconds
        listed.append(Item(replica.ids[place.row] or "", round(place.score, 6), reasons, title_of(video), length))
    return listed


def _reason(replica: Replica, why: Why) -> Reason:
    if why.row is None:
        return Reason(why.kind, why.text)
    return Reason(why.kind, why.text, replica.ids[why.row], title_of(replica.video(why.row)))


def named(engine: Engine, rows: Sequence[int]) -> list[Named]:
    """Videos by their rows."""
    return [Named(engine.replica.ids[row] or "", title_of(engine.replica.video(row))) for row in rows]


def title_of(video: Video | None) -> str | None:
    """Its title, if it has any."""
    return video.title if video is not None and video.title else None
