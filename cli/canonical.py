"""A canonical replay for commands: from settings and a broker to an engine in memory, and to the rows that it stored.

Flows in: a log, and where to stop. Flows out: a `Replayer` that has learned it, and its rows as a table.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer

from agents.replayer import Replayer
from agents.worker import engine_options
from infra.settings import Settings
from state.digest import digests
from state.store import OFFSET_KEY, TOPIC_KEY
from topics.canonical_log import FETCH, CanonicalLog, StoppingPoint
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS

#: Inputs whose places count in a digest.
INPUTS = (INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS)
Rows = dict[tuple[int, bytes], bytes]


def replayed(
    settings: Settings,
    bootstrap: str,
    until: StoppingPoint,
    told: Callable[[int, int], None] = lambda _done, _all: None,
    fetch: int = FETCH,
    *,
    forgetting: bool = False,
) -> Replayer:
    """Learn the log up to there; `told` is called with the interactions so far and all there are.

    Parameters
    ----------
    forgetting : what users did who have been erased since is as if it had never been; a worker has met it before

    Raises
    ------
    SettingsError, TopicsUnavailable, TopicMismatch
    """
    tolerance_ms = int(settings.future_tolerance_s * 1000)
    with CanonicalLog(bootstrap, settings.partitions, tolerance_ms, until, fetch, forgetting=forgetting) as log:
        replayer = Replayer(engine_options(settings), tolerance_ms)
        replayer.run(log, lambda events: told(events, log.records))
    return replayer


def rows_of(replayer: Replayer) -> Rows:
    """What it has stored."""
    return {
        (shard.partition, key): value
        for shard in replayer.shards
        for store in (shard.users_store, shard.items_store)
        for key, value in store.scan(b"")
        if key not in (OFFSET_KEY, TOPIC_KEY)
    }


def digests_of(replayer: Replayer) -> dict[str, str]:
    """Digests of what it has stored."""
    return digests(rows_of(replayer), INPUTS)


def stopping_point(until: str | None, offsets: str | None) -> StoppingPoint:
    """Read what a command was told: a time of arrival, and offsets as JSON or the name of a file of it.

    Raises
    ------
    typer.BadParameter
    """
    return StoppingPoint(None if until is None else time_ms(until), None if offsets is None else _places(offsets))


def time_ms(text: str, option: str = "--until") -> int:
    """Read a time: milliseconds since 1970. Raises typer.BadParameter, which names the option."""
    if re.fullmatch(r"[0-9]{1,15}", text):
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} {text!r} is no time: give milliseconds since 1970, or for example 2026-03-01T12:00:00Z"
        ) from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _places(text: str) -> dict[str, dict[int, int]]:
    try:
        data = text if text.lstrip().startswith("{") else Path(text).read_text()
        found = msgspec.json.decode(data, type=dict[str, dict[int, int]])
    except msgspec.MsgspecError as error:
        raise typer.BadParameter(
            f'--offsets is none of ours ({error}): give next offsets by topic and partition, {{"interactions": {{"0": 1200}}}}'
        ) from error
    if unknown := sorted(found.keys() - set(INPUTS)):
        raise typer.BadParameter(f"--offsets names {', '.join(unknown)}: a replay reads {', '.join(INPUTS)}")
    return found
