"""What is known of one user, in words: for whoever has to explain a list, or to answer the user.

Flows in: an engine and a user. Flows out: a `Profile`. A pure read; nothing is created for somebody unknown.
"""

from collections import Counter
from dataclasses import dataclass, field

from state import rows
from state.engine import Engine
from state.segments import words_of
from topics.catalog import User
from topics.interactions import EVENTS

#: Categories and authors that are named.
MOST = 10


@dataclass(frozen=True)
class Profile:
    """What is known of a user.

    Attributes
    ----------
    attributes : what the `users` topic says of them
    segments : the words of it that count in lists
    events : accepted events by kind
    last_event_ms : time of the latest event, None without any
    positives : rows of the latest videos liked or viewed long, newest first
    passed : rows of videos that they came to and left without a positive, newest first
    seen : videos that are in no list of theirs any more
    categories, authors : of the latest positives, with how many have them, most first
    """

    attributes: User | None
    segments: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    last_event_ms: int | None = None
    positives: list[int] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    seen: int = 0
    categories: dict[str, int] = field(default_factory=dict)
    authors: dict[str, int] = field(default_factory=dict)


def profile_of(engine: Engine, user_id: str, partition: int) -> Profile | None:
    """What is known of a user whose shard, or a copy of it, is here; None where nothing is."""
    holder = engine.holder(partition)
    about = None if holder is None else holder.row_of_user(rows.ATTRIBUTES + user_id.encode())
    attributes = None if about is None else rows.decode_attributes(about)
    segments = [] if attributes is None else list(words_of(attributes))
    slot = engine.users.find(user_id, partition)
    if slot is None or not engine.users.counts[slot].any():
        forgotten = attributes is None or attributes == User(erased_ms=attributes.erased_ms)
        return None if forgotten else Profile(attributes, segments)
    context = engine.context(slot)
    positives = context.history.tolist()
    videos = [video for row in positives if (video := engine.replica.video(row)) is not None]
    counts = engine.users.counts[slot].tolist()
    return Profile(
        attributes,
        segments,
        {kind: count for kind, count in zip(EVENTS, counts, strict=False) if count},
        int(engine.users.last_ms[slot]),
        positives,
        context.passed.tolist(),
        len(engine.users.seen(slot)),
        dict(Counter(name for video in videos for name in video.categories).most_common(MOST)),
        dict(Counter(video.author for video in videos if video.author).most_common(MOST)),
    )
