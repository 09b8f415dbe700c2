"""`headrace verify`: does what a version has learned agree with its log? Replays the same records, and compares."""

import time
from collections import Counter
from contextlib import suppress
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cli.active_version import followed
from cli.committed import CommittedLog
from infra.embedded_kafka import open_broker
from infra.logs import configure_logs
from infra.settings import Settings
from topics.interactions import decode_value, event_code
from topics.rejected import Rejected
from topics.specs import INTERACTIONS, ensure_topics
from topics.versions import versions_spec

#: Differences that are told.
FIRST = 20


def verify(
    version: Annotated[str | None, typer.Option(help="Which one; by default the one that serves.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare what a version has committed with a canonical replay of the records that it has applied.

    Counters, histories and what was seen must be equal, for every user and video; the exit status is 1 where they are not. Vectors
    depend on the order in which users of different shards were learned, so they are compared by the lists that they make. Workers
    go on meanwhile, and are not asked: what they have committed is read from the changelogs.
    """
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    # What is imported here brings numba.
    from cli.canonical import INPUTS, replayed, rows_of
    from cli.snapshot import take_snapshot
    from cli.verify_compare import compare_counters, erased_users, overlaps
    from cli.worker import load_kernels
    from topics.canonical_log import StoppingPoint

    load_kernels()
    began = time.monotonic()
    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        name = version or followed(settings, broker.bootstrap)[0].version
        live = take_snapshot(settings, broker.bootstrap, name)
        replayer = replayed(settings, broker.bootstrap, StoppingPoint(places=live.places(INPUTS)))
        table = rows_of(replayer)
        slack = _done_by(broker.bootstrap, {key for _, key in erased_users(live.rows, table)})
    found = compare_counters(live, replayer, table, slack)
    agreement = overlaps(settings, live, replayer, table)
    equal = not found.differences
    if as_json:
        answer = {
            "version": name,
            "equal": equal,
            "events": replayer.events,
            "users": found.users,
            "videos": found.videos,
            "left_out": found.left_out,
            "late": int(sum(live.late.values())),
            "differences": len(found.differences),
            "first": found.differences[:FIRST],
            **agreement,
            "seconds": round(time.monotonic() - began, 3),
        }
        typer.echo(orjson.dumps(answer))
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for difference in found.differences[:FIRST]:
            console.print(difference)
        if (more := len(found.differences) - FIRST) > 0:
            console.print(f"and {more:,} more")
        console.print(
            f"{name} and a replay of its {replayer.events:,} interactions: {found.users:,} users and {found.videos:,} videos, "
            + ("counters equal" if equal else f"{len(found.differences):,} differences")
            + (f"; {found.left_out:,} deleted, expired or erased are left out" if found.left_out else "")
        )
        for what, share in agreement.items():
            console.print(
                f"first 100 by {what}: {share['mean']:.1%} in common in the mean of {share['users']:.0f} users,"
                f" {share['p10']:.1%} of the tenth with the least"
            )
    if not equal:
        raise typer.Exit(1)


def _done_by(bootstrap: str, users: set[bytes]) -> Counter[tuple[str, int]]:
    """Events of the log about each video, by kind, of these users (ids as UTF-8)."""
    done: Counter[tuple[str, int]] = Counter()
    if not users:
        return done
    with CommittedLog(bootstrap, INTERACTIONS) as log:
        for record in log.advance():
            if record.key() in users:
                with suppress(Rejected):
                    event = decode_value(record.value() or b"")
                    done[event.video_id, event_code(event.event)] += 1
    return done
