"""`headrace replay` and `headrace versions` with real workers: what a switch of versions keeps, and what it refuses.

One broker for all, as the topics of events are the same for every app; the tests at the top still find them empty.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from cli.active_version import followed
from cli.plain_user import DUPLICATE, IGNORED, POSITIVE, SIGNAL
from cli.recount import Recount
from cli.replay import VersionInUse
from cli.versions import UnknownVersion, versions
from cli.worker_process import worker_environment
from infra.embedded_kafka import EmbeddedKafka
from infra.settings import PREFIX, Settings
from ingestion.produce import produce_videos
from ingestion.simulate import Audience
from state import rows
from state.replica import video_code
from state.users import KINDS
from tests.agents.running_worker import RunningWorker, handled, latest, read_committed
from topics.dead_letter import parse_dead_letter
from topics.evidence import SHOWN
from topics.groups import committed, members
from topics.interactions import Interaction, decode_value, encode
from topics.partitions import partition_of
from topics.rejected import Rejected
from topics.specs import DEAD, INTERACTIONS, changelog_topic, ensure_topics, producer_config, specs
from topics.versions import Active, read_active, versions_spec, write_active

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

APP, PARTITIONS = "replayed", 4
#: Events before the replay; and at most in all, as they go on arriving until it is over.
FIRST, MOST, PER_S = 5_000, 60_000, 150


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka.bootstrap


class Replay:
    """A `headrace replay` process."""

    def __init__(self, bootstrap: str, home: Path, app: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "replay", "--from-beginning", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=worker_environment(bootstrap, home, 1, {"app": app}),
        )

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said."""
        with self.process:  # one that is killed is waited for, or a later test is blamed for it
            try:
                said = self.process.communicate(timeout=90)[0]
            finally:
                self.process.kill()
        return self.process.returncode, said


def test_a_worker_whose_version_is_set_keeps_to_it(kafka: str, tmp_path: Path) -> None:
    with RunningWorker(kafka, tmp_path, "pinned", version="v1") as worker:
        worker.wait(lambda _: "worker ready" in worker.log, 90)
        write_active(kafka, "pinned", Active("v9", 1, "v1"))
        worker.wait(lambda _: "another version is active" in worker.log)
        [line] = [line for line in worker.log.splitlines() if "another version is active" in line]
        assert "active=v9" in line
        assert "version=v1" in line
        time.sleep(0.5)
        assert members(kafka, "pinned.v1") == 1
        assert worker.stop() == 0
        assert "worker restarts" not in worker.log


def test_a_log_with_nothing_in_it_gives_an_empty_version(kafka: str, tmp_path: Path) -> None:
    status, said = Replay(kafka, tmp_path, "empty").end()
    assert status == 0, said
    assert json.loads(said.splitlines()[-1])["events"] == 0
    assert json.loads(said.splitlines()[-1])["version"] == "v2"
    assert "no worker runs" in said
    active = read_active(kafka, "empty")
    assert active is not None
    assert (active.version, active.previous) == ("v2", "v1")


@dataclass
class Switched:
    """A worker that has changed from v1 to v2 while events went on arriving."""

    bootstrap: str
    home: Path
    worker: RunningWorker
    pid: int
    interrupted: str
    said: str
    log: list[Message]
    totals: dict[str, int]


def send(bootstrap: str, events: list[Interaction], paced_until: threading.Event | None = None) -> None:
    """Send events, every 40th followed by a record that is none and every 50th sent twice."""
    producer = Producer(producer_config(bootstrap))
    for n, event in enumerate(events):
        key = event.user_id.encode()
        for _ in range(2 if n % 50 == 0 else 1):
            producer.produce(INTERACTIONS, encode(event), key, partition_of(key, PARTITIONS))
        if n % 40 == 0:
            producer.produce(INTERACTIONS, b'{"bad":%d}' % n, key, n % PARTITIONS)
        if paced_until is not None:
            producer.poll(0)
            if paced_until.wait(1 / PER_S):
                break
    assert producer.flush(20) == 0


@pytest.fixture(scope="module")
def switched(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switched]:
    """Build v2 in two goes, the first one interrupted, while a worker serves v1 and a producer goes on."""
    home = tmp_path_factory.mktemp("replayed")
    ensure_topics(kafka, specs(APP, "v1", PARTITIONS))
    audience = Audience(11, 500, 400)
    produce_videos(kafka, audience.videos())
    events = list(audience.events(MOST))
    over = threading.Event()
    send(kafka, events[:FIRST])
    with ExitStack() as stack:
        worker = stack.enter_context(RunningWorker(kafka, home, APP))
        worker.wait(lambda totals: handled(totals) >= FIRST, 90)
        rest = threading.Thread(target=send, args=(kafka, events[FIRST:], over))
        rest.start()
        stack.callback(over.set)
        interrupted = Replay(kafka, home, APP)
        deadline = time.monotonic() + 60
        while not any(committed(kafka, f"{APP}.v2", PARTITIONS)[INTERACTIONS].values()):
            assert time.monotonic() < deadline
            assert interrupted.process.poll() is None, interrupted.end()
        interrupted.process.send_signal(signal.SIGINT)
        status, first_said = interrupted.end()
        assert status == 130, first_said
        assert followed_version(kafka) == "v1"
        pid = worker.process.pid
        status, said = Replay(kafka, home, APP, "--version", "v2").end()
        assert status == 0, said
        assert rest.is_alive(), "events were to arrive until after the switch"
        over.set()
        rest.join()
        log = read_committed(kafka, INTERACTIONS)
        worker.wait(lambda totals: handled(totals) == len(log), 60)
        wait_for_items(kafka, "v2", log)
        yield Switched(kafka, home, worker, pid, first_said, said, log, worker.totals())


def followed_version(bootstrap: str) -> str:
    ensure_topics(bootstrap, [versions_spec(APP)])
    active = read_active(bootstrap, APP)
    return "v1" if active is None else active.version


def groups_with_members(bootstrap: str) -> set[str]:
    return {f"{APP}.{name}" for name in ("v1", "v2") if members(bootstrap, f"{APP}.{name}")}


def changelog(bootstrap: str, version: str, table: str) -> dict[tuple[int, bytes], bytes]:
    return latest(read_committed(bootstrap, changelog_topic(APP, version, table)))


def interactions(log: list[Message]) -> Iterator[Interaction]:
    for record in log:
        try:
            yield decode_value(record.value() or b"")
        except Rejected:
            continue


def wait_for_items(bootstrap: str, version: str, log: list[Message]) -> None:
    """Wait until all evidence is in committed rows of videos."""
    expected = sum(n for (_, kind), n in Recount(interactions(log)).items.items() if kind != SHOWN)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        items = changelog(bootstrap, version, "items")
        if expected == sum(
            int(rows.read_item(v)["counts"][:SHOWN].sum()) for (_, k), v in items.items() if k[:2] == rows.ITEM
        ):
            return
        time.sleep(0.2)
    raise AssertionError(f"not all evidence of {expected} events is in the videos' rows")


def test_the_worker_changed_by_itself_and_answers(switched: Switched) -> None:
    assert switched.worker.process.pid == switched.pid
    assert switched.worker.process.poll() is None
    assert "version v2 takes over from v1" in switched.worker.log
    assert switched.worker.log.count("worker restarts") == 1
    assert "the worker stops" not in switched.worker.log
    ready = [line for line in switched.worker.log.splitlines() if "worker ready" in line]
    assert ["version=v1" in ready[0], "version=v2" in ready[-1], len(ready)] == [True, True, 2]
    assert f":{switched.worker.port}" in ready[-1]
    assert groups_with_members(switched.bootstrap) == {f"{APP}.v2"}


def test_nothing_is_lost_or_doubled_around_the_switch(switched: Switched) -> None:
    recount = Recount(interactions(switched.log))
    assert recount.outcomes[DUPLICATE] > 100
    expected = {
        "learned": recount.outcomes[POSITIVE] + recount.outcomes[SIGNAL],
        "ignored": recount.outcomes[IGNORED],
        "duplicate": recount.outcomes[DUPLICATE],
        "dead": len(switched.log) - recount.outcomes.total(),
    }
    assert {name: switched.totals[name] for name in expected} == expected
    users = changelog(switched.bootstrap, "v2", "users")
    stored = {key[2:].decode(): rows.read_user(value) for (_, key), value in users.items() if key[:2] == rows.USER}
    assert stored.keys() == recount.users.keys()
    for user_id, plain in recount.users.items():
        row = stored[user_id]
        assert row["counts"].tolist() == [plain.counts[kind] for kind in range(KINDS)], user_id
        assert row["history"] == plain.history, user_id
        assert row["seen"].tolist() == [video_code(v) | int(flag) for v, flag in plain.seen.items()], user_id
    items = changelog(switched.bootstrap, "v2", "items")
    videos = {key[2:].decode(): rows.read_item(value) for (_, key), value in items.items() if key[:2] == rows.ITEM}
    for video_id in {video_id for video_id, _ in recount.items}:
        counts = [recount.items[video_id, kind] for kind in range(KINDS)]
        assert videos[video_id]["counts"].tolist() == counts, video_id
        assert videos[video_id]["plays"] == recount.plays[video_id], video_id


def test_users_of_both_versions_are_equal_where_the_old_one_ended(switched: Switched) -> None:
    old, new = (changelog(switched.bootstrap, version, "users") for version in ("v1", "v2"))
    ends = {where: rows.decode_cut(v).next[INTERACTIONS] for (where, key), v in old.items() if key == rows.CUT_KEY}
    later = {record.key() for record in switched.log if (record.offset() or 0) >= ends[record.partition() or 0]}
    compared = 0
    for (where, key), value in old.items():
        if key[:2] == rows.USER and key[2:] not in later:
            ours, theirs = rows.read_user(value), rows.read_user(new[where, key])
            for name in ("counts", "history", "seen", "last_ms"):
                assert list(ours[name]) == list(theirs[name]) if name != "last_ms" else ours[name] == theirs[name], key
            compared += 1
    assert later
    assert compared > 100


def headers_of(record: Message) -> list[tuple[str, bytes]]:
    return cast("list[tuple[str, bytes]]", record.headers() or [])


def test_every_refused_record_has_one_dead_letter(switched: Switched) -> None:
    letters = [parse_dead_letter(r.key(), r.value(), headers_of(r)) for r in read_committed(switched.bootstrap, DEAD)]
    sources = Counter((letter.topic, letter.partition, letter.offset) for letter in letters)
    refused = {
        (INTERACTIONS, record.partition(), record.offset())
        for record in switched.log
        if (record.value() or b"").startswith(b'{"bad"')
    }
    assert len(refused) > FIRST // 40 + 10
    assert sources == Counter(refused)


def test_the_command_says_what_it_did(switched: Switched) -> None:
    done = json.loads(switched.said.splitlines()[-1])
    assert done["version"] == "v2"
    # The first go had learned some of it.
    assert 0 < done["events"] < len(switched.log)
    assert done["events_per_s"] == pytest.approx(done["events"] / done["seconds"], rel=1e-2)
    assert "has taken over, workers: 1. To remove the old version: headrace versions --remove v1" in switched.said
    assert "headrace replay --from-beginning --version v2" in switched.interrupted
    assert "v1 serves as before" in switched.interrupted


def test_a_building_that_fails_says_why_and_harms_nothing(switched: Switched) -> None:
    folder = switched.home / "state" / "broken"
    folder.mkdir()
    (folder / "users-1").write_text("no store")
    status, said = Replay(switched.bootstrap, switched.home, APP, "--version", "broken").end()
    assert status == 1, said
    assert "headrace: version broken was not built: StoreCorrupt" in said
    assert "v2 serves as before" in said
    assert "Traceback" not in said
    assert followed_version(switched.bootstrap) == "v2"
    assert switched.worker.totals() == switched.totals


def test_versions_are_removed_unless_they_serve(
    switched: Switched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs last: it removes what the others read."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in worker_environment(switched.bootstrap, switched.home, 1, {"app": APP}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VersionInUse, match="v2 is the version that serves"):
        versions(remove="v2")
    with pytest.raises(UnknownVersion, match="no version v7 of replayed: there are v1, v2, broken"):
        versions(remove="v7")
    monkeypatch.setenv("HEADRACE_VERSION", "v1")  # whoever keeps to v1 calls it the one that serves
    with pytest.raises(VersionInUse, match="v1 is the version that serves"):
        versions(remove="v1")
    with pytest.raises(VersionInUse, match="v2 is built or served by 1 worker"):
        versions(remove="v2")
    monkeypatch.delenv("HEADRACE_VERSION")
    versions()
    assert "active" in capsys.readouterr().out
    before = topics_of(switched.bootstrap)
    for name in ("v1", "broken"):
        assert (switched.home / "state" / name).exists()
        versions(remove=name)
        assert f"Version {name} is removed" in capsys.readouterr().out
        assert not (switched.home / "state" / name).exists()
    deadline = time.monotonic() + 20
    expected = {name for name in before if ".v1" not in name and ".broken" not in name}
    assert len(before) - len(expected) == 6
    while topics_of(switched.bootstrap) != expected:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not any(committed(switched.bootstrap, f"{APP}.v1", PARTITIONS).values())
    assert followed(Settings(), switched.bootstrap)[0].version == "v2"
    assert switched.worker.totals() == switched.totals
    assert switched.worker.stop() == 0, switched.worker.log


def topics_of(bootstrap: str) -> set[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    return {name for name in admin.list_topics(timeout=10).topics if name.startswith(f"{APP}.")}
