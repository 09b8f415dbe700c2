"""Answers as they travel: one struct each, encoded by msgspec."""

from http import HTTPStatus

import msgspec

from topics.catalog import User


class Reason(msgspec.Struct, omit_defaults=True):
    """Why an item is in the list: `kind`, in words, and the video it comes from, with its title."""

    kind: str
    text: str
    video_id: str | None = None
    title: str | None = None


class Item(msgspec.Struct, omit_defaults=True):
    """One place of a list; `score` orders within this answer only."""

    video_id: str
    score: float
    reasons: list[Reason]
    title: str | None = None
    duration_seconds: float | None = None


class Recommendations(msgspec.Struct):
    """Answer of `/v1/recommend`.

    `source` says who answered (`owner`: live state of the user, here or in another worker; `session`: what was just watched, and
    nothing else is known; `trending`: nothing is known of the user, neither events nor words; `standby`: what a copy of
    the owner's state knows of the user; `cache`: the owner's last list;
    `replica`: the owner does not answer, and this is made from the videos alone). The state includes
    all interactions of the user's shard below `offset`, as it was at `as_of_ms`; without a user, `offset` is 0. `next_cursor` asks for
    the next page; null where there is none. `arm` is the user's in the experiment, null where there is none.
    """

    user_id: str | None
    recommendation_id: str
    source: str
    as_of_ms: int
    offset: int
    items: list[Item]
    next_cursor: str | None = None
    arm: str | None = None


class Named(msgspec.Struct, omit_defaults=True):
    """A video by its id and, where the catalogue has one, its title."""

    video_id: str
    title: str | None = None


class KnownUser(msgspec.Struct):
    """Answer of `GET /v1/users/{user_id}`: what is known of a user, and so what their lists are made from.

    `attributes` is what the `users` topic says of them, and `segments` the words of it that count in lists; `events` has how many
    were accepted, by kind; `positives` are the latest videos that they liked or viewed long and `passed` those that they left without,
    newest first; `seen` is how many videos are in no list of theirs any more; `categories` and `authors` say how many of the positives
    have them; `as_of_ms` and `offset` as in a list.
    """

    user_id: str
    partition: int
    as_of_ms: int
    offset: int
    attributes: User | None
    segments: list[str]
    events: dict[str, int]
    last_event_ms: int | None
    positives: list[Named]
    passed: list[Named]
    seen: int
    categories: dict[str, int]
    authors: dict[str, int]


class SimilarVideos(msgspec.Struct):
    """Answer of `/v1/similar`."""

    video_id: str
    as_of_ms: int
    items: list[Item]


class Trending(msgspec.Struct):
    """Answer of `/v1/trending`."""

    as_of_ms: int
    items: list[Item]


class Found(msgspec.Struct, omit_defaults=True):
    """A video of the catalogue."""

    video_id: str
    title: str | None = None
    duration_seconds: float | None = None


class FoundVideos(msgspec.Struct):
    """Answer of `GET /v1/videos`, best first."""

    items: list[Found]


class HeldUsers(msgspec.Struct):
    """Answer of `GET /v1/users`: ids, those used last first."""

    user_ids: list[str]


class Refusal(msgspec.Struct):
    """One event of a request that was not taken, by its index in the request."""

    index: int
    reason: str
    detail: str


class EventsTaken(msgspec.Struct):
    """Answer of `/v1/events`; `offsets` has the next offset by partition: an answer with that `offset` reflects the events."""

    accepted: int
    rejected: list[Refusal]
    offsets: dict[str, int]


class Stored(msgspec.Struct):
    """Answer of `PUT` and `DELETE`: the record is in the log."""

    id: str
    partition: int
    offset: int


class Status(msgspec.Struct):
    """Answer of `/healthz`."""

    status: str


class Readiness(msgspec.Struct, omit_defaults=True):
    """Answer of `/readyz`: whether shards are recovered and assigned.

    `shards`, and `totals` of what became of their records, are for whoever may read the metrics.
    """

    ready: bool
    shards: list[int] | None = None
    totals: dict[str, int] | None = None


class Failure(msgspec.Struct):
    """Answer to a request that cannot be met: problem details (RFC 9457).

    Attributes
    ----------
    type : names the kind of problem for machines, and does not change
    title : what the status means
    status : of the answer
    detail : one sentence for people
    error : the last part of `type`, in one word
    """

    type: str
    title: str
    status: int
    detail: str
    error: str

    @classmethod
    def of(cls, status: int, error: str, detail: str) -> "Failure":
        """Details of a problem that is named by one word."""
        return cls(f"urn:headrace:problem:{error}", HTTPStatus(status).phrase, status, detail, error)
