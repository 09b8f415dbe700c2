"""The end of a chaos run: wait until everything is applied, stop the workers, and compare.

A stopped load and running workers flow in; a verdict flows out, and the counts of the log. The order matters: cuts are read before the
ends of the inputs, so that evidence which they brought forth is among what has to be applied.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from cli.chaos_faults import ChaosFailed, Faults
from cli.chaos_load import Load
from cli.chaos_verify import (
    LoggedEvents,
    Verdict,
    check_dead_letters,
    check_stores,
    check_users,
    check_videos,
)
from cli.committed import CommittedLog, Table, latest
from cli.plain_user import DUPLICATE
from cli.worker_process import WorkerProcess
from state import rows
from topics.specs import DEAD, INTERACTIONS, changelog_topic, evidence_topic

#: No shard moves on for so long: what is left is not going to be applied.
STILL_S = 90.0
POLL_S = 0.3


@dataclass
class Compared:
    """What came of it: the verdict, and counts for the summary."""

    verdict: Verdict
    counts: dict[str, Any] = field(default_factory=dict)


class Comparison:
    """Reads a version's topics to their ends and compares; use once, as a context."""

    def __init__(self, bootstrap: str, app: str, version: str, log: LoggedEvents, partitions: int) -> None:
        self._partitions, self._log = partitions, log
        self._stack = ExitStack()
        self._topics = {
            name: self._stack.enter_context(CommittedLog(bootstrap, topic))
            for name, topic in (
                ("users", changelog_topic(app, version, "users")),
                ("items", changelog_topic(app, version, "items")),
                ("evidence", evidence_topic(app, version)),
                ("interactions", INTERACTIONS),
                ("dead", DEAD),
            )
        }
        self._evidence = evidence_topic(app, version)
        self._tables: dict[str, Table] = {"users": {}, "items": {}}
        self.version = version

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self,
        load: Load,
        faults: Faults,
        workers: list[WorkerProcess],
        tell: Callable[[str], None],
        look: Callable[[str], None],
    ) -> Compared:
        """Wait, stop, compare. Raises ChaosFailed or WorkerEnded where a worker does not end as it should."""
        faults.await_ready()
        tell("waiting until all is applied")
        self._await_applied(faults, look)
        running = faults.running()
        for worker in running:
            self._stop(worker)
        tell("all is applied; comparing with the recount")
        self._log.take(self._topics["interactions"].advance())
        look("comparing")
        verdict = Verdict()
        missing = list(self._log.missing(load.acknowledged))
        self._read_tables()
        check_dead_letters(verdict, self._log, self._topics["dead"].advance())
        check_users(verdict, self._log, self._tables["users"], self._partitions)
        check_videos(verdict, self._log, self._tables["items"], self._partitions, load.published)
        # The last owner's disk, then the other's, which has to be brought up to the changelogs first.
        for worker in [*running, *(w for w in workers if w not in running and w.log_file.exists())]:
            if worker not in running:
                tell(f"worker {worker.name} brings its disk up to date")
                worker.start()
                faults.await_ready()
                self._stop(worker)
                self._read_tables()
            if len(running) == 1 or worker not in running:
                check_stores(verdict, worker.home / "state" / self.version, self._tables, self._partitions)
        verdict.differences = missing + verdict.differences
        recount = self._log.recount
        return Compared(
            verdict,
            {
                "events": self._log.records,
                "sent": load.sent,
                "acknowledged": load.acknowledged_records,
                "duplicates": recount.outcomes[DUPLICATE],
                "dead": len(self._log.refused),
                "users": len(recount.users),
                "videos": len(load.published),
                "rows_compared": verdict.rows_compared,
                "rows_truncated": verdict.rows_truncated,
                "largest_float_error": float(f"{verdict.largest_error:.1e}"),
                "lost": len(missing) + verdict.lost,
                "doubled": verdict.doubled,
            },
        )

    def _stop(self, worker: WorkerProcess) -> None:
        status = worker.stop()
        if status != 0:
            raise ChaosFailed(f"worker {worker.name} was told to stop and ended with {status}:\n{worker.log_tail}")

    def _read_tables(self) -> None:
        for name, table in self._tables.items():
            latest(self._topics[name].advance(), table)

    def _await_applied(self, faults: Faults, look: Callable[[str], None]) -> None:
        """Return when all is applied, or when nothing moves any more: then the comparison says what is missing."""
        moved = time.monotonic()
        before: dict[int, dict[str, int]] = {}
        while True:
            look("waiting until all is applied")
            faults.running()
            latest(self._topics["users"].advance(), self._tables["users"])
            cuts = {
                partition: _reached_by(rows.decode_cut(value), self._evidence)
                for (partition, key), value in self._tables["users"].items()
                if key == rows.CUT_KEY
            }
            ends = {INTERACTIONS: self._topics["interactions"].last_offsets()}
            ends[self._evidence] = self._topics["evidence"].last_offsets()
            if all(self._reached(cuts, topic, last) for topic, last in ends.items()):
                return
            if cuts != before:
                moved, before = time.monotonic(), cuts
            elif time.monotonic() - moved > STILL_S:
                return
            time.sleep(POLL_S)

    def _reached(self, cuts: dict[int, dict[str, int]], topic: str, last: dict[int, int] | None) -> bool:
        return last is not None and all(
            cuts.get(partition, {}).get(topic, 0) > offset for partition, offset in last.items()
        )


def _reached_by(cut: rows.Cut, evidence: str) -> dict[str, int]:
    """Next offset by input up to which all rows hold it, also the lists."""
    return cut.next if cut.lists is None else {**cut.next, evidence: cut.lists}
