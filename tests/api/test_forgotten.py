"""A user who has been erased is looked for everywhere: stores, changelogs, evidence, Valkey, a snapshot, metrics and logs."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from agents.snapshot_save import Saved, save
from cli.committed import latest, read_committed
from state import rows
from state.snapshot import unpack
from state.snapshot_store import SnapshotStore
from state.store import RocksStore
from tests.agents.running_worker import HOST, RunningWorker
from tests.api.redis_server import RedisServer
from tests.api.waiting import ready
from topics.catalog import User, decode_user_value
from topics.specs import RECOMMENDATIONS, USERS, changelog_topic, evidence_topic

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

APP, VERSION, PARTITIONS = "forgotten", "v1", 2
GONE, BACK = "gone-9b1f6c", "back-27aa05"
EXPERIMENT = {"name": "each", "arms": [{"name": "a", "share": 1}, {"name": "b", "share": 1}]}


def until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def in_valkey(server: RedisServer, user: str) -> bool:
    return any(
        user.encode() in key or user.encode() in (server.direct.get(key) or b"") for key in server.direct.scan_iter()
    )


def records(bootstrap: str, topic: str, user: str) -> list[tuple[bytes, bytes]]:
    """What a topic means, as compaction will leave it, where it names the user."""
    found = latest(read_committed(bootstrap, topic))
    return [(key, value) for (_, key), value in found.items() if user.encode() in key or user.encode() in value]


def is_a_mark(found: list[tuple[bytes, bytes]], user: str) -> bool:
    """Whether all that is found is that the user was erased."""
    [(key, value)] = found
    return key == rows.ATTRIBUTES + user.encode() and rows.decode_attributes(value) == User(
        erased_ms=rows.decode_attributes(value).erased_ms
    )


def test_an_erased_user_is_nowhere_but_in_the_logs_of_what_happened(
    bootstrap: str, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    experiment = tmp_path / "experiment.json"
    experiment.write_text(json.dumps(EXPERIMENT))
    settings = {"partitions": PARTITIONS, "access_log": "all", "experiment": experiment}
    home = tmp_path / "home"
    with (
        RunningWorker(bootstrap, home, APP, **settings) as worker,
        httpx.Client(base_url=f"http://{HOST}:{worker.port}", timeout=20) as http,
    ):
        ready(worker, 90)
        others = [{"user_id": f"u{n % 9}", "video_id": f"v{n % 25}", "event": "like"} for n in range(150)]
        theirs = [{"user_id": user, "video_id": f"v{n}", "event": "like"} for user in (GONE, BACK) for n in range(6)]
        offsets = http.post("/v1/events", json=[*others, *theirs]).json()["offsets"]
        for user in (GONE, BACK):
            http.put(f"/v1/users/{user}", json={"country": "no", "attributes": {"name": f"name of {user}"}})
            until(lambda user=user: "no" in http.get(f"/v1/users/{user}").text, "attributes")  # type: ignore[misc]
            until(lambda user=user: "v5" in http.get(f"/v1/users/{user}").text, "history")  # type: ignore[misc]
            for _ in range(3):
                ask = {"n": 10, "min_offset": max(offsets.values()), "wait_ms": 500}
                assert len(http.get(f"/v1/recommend/{user}", params=ask).json()["items"]) == 10
            assert http.get(f"/v1/recommend/{user}").status_code == 200
            until(lambda user=user: in_valkey(server, user), "the list is kept")  # type: ignore[misc]
        users_changelog = changelog_topic(APP, VERSION, "users")
        # Or nothing would be looked for.
        until(lambda: len(records(bootstrap, users_changelog, GONE)) == 2, "rows are committed")
        assert records(bootstrap, RECOMMENDATIONS, GONE)

        for user in (GONE, BACK):
            assert http.delete(f"/v1/users/{user}").status_code == 202
        assert http.put(f"/v1/users/{BACK}", json={"country": "pt"}).status_code == 202
        until(lambda: http.get(f"/v1/users/{GONE}").status_code == 404, "erased")
        until(lambda: not in_valkey(server, GONE), "the list is gone")
        until(lambda: carried(bootstrap) == User(country="pt", erased_ms=carried(bootstrap).erased_ms), "PUT")
        until(lambda: carried(bootstrap).erased_ms is not None, "the mark is carried on to what is said after it")
        until(lambda: len(records(bootstrap, users_changelog, GONE)) == 1, "the erasure is committed")
        figures = http.get("/metrics").text + http.get("/v1/users?n=100").text + http.get("/v1/experiments").text
        assert GONE not in figures
        assert worker.stop() == 0
        assert "/v1/users/{user_id}" in worker.log
        assert GONE not in worker.log

    assert is_a_mark(records(bootstrap, users_changelog, GONE), GONE)
    for topic in (changelog_topic(APP, VERSION, "items"), evidence_topic(APP, VERSION)):
        everything = [(record.key() or b"") + (record.value() or b"") for record in read_committed(bootstrap, topic)]
        assert everything
        assert GONE.encode() not in b"".join(everything)
    found = []
    for table, partition in itertools.product(("users", "items"), range(PARTITIONS)):
        stored = RocksStore(home / "state" / VERSION / f"{table}-{partition}")
        found += [(key, value) for key, value in stored.scan(b"") if GONE.encode() in key or GONE.encode() in value]
        stored.close()
    assert is_a_mark(found, GONE)

    folder = tmp_path / "work"
    folder.mkdir()
    store = SnapshotStore(str(tmp_path / "snapshots"), APP)
    manifest = save(Saved(bootstrap, APP, VERSION, PARTITIONS, folder, "test"), store)
    held = []
    for file in manifest.files:
        store.fetch(manifest, file, tmp_path / file.name)
        held += [row for batch in unpack(tmp_path / file.name) for row in batch]
    assert any(BACK.encode() in key for key, _ in held)
    assert is_a_mark([(k, v or b"") for k, v in held if GONE.encode() in k or GONE.encode() in (v or b"")], GONE)


def carried(bootstrap: str) -> User:
    """What the topic will be compacted to of the user who came back."""
    [(_, value)] = records(bootstrap, USERS, BACK)
    return decode_user_value(value)
