"""`headrace models` with real workers: saved while they learn, started from, promoted, imported, rolled back; and what is refused.

One log and one app, in the order of the tests: what one has saved, the next ones use. A worker's state is compared with a recount
of the whole log (`tests.agents.stage`), so a snapshot that was torn, or a cut that passes over anything, is seen.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from agents.checkpoint import ShardTopics
from agents.snapshot_start import StartFrom, fill_stores
from agents.takeover import take_over
from cli.main import main
from cli.versions import versions
from infra.embedded_kafka import EmbeddedKafka
from infra.settings import PREFIX
from state.snapshot import Manifest, PackedFile
from state.snapshot_store import SnapshotStore
from state.store import RocksStore
from tests.agents import stage as stage_module
from tests.agents.lives import Lives
from tests.agents.stage import PARTITIONS, Stage, simulate, stores
from topics.interactions import EVENTS
from topics.specs import ensure_topics, specs
from topics.versions import Active, read_active, versions_spec, write_active

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

APP = "modelled"
#: Neighbour lists are behind in most checkpoints.
CONSTANTS = {"state.shard:LISTS_FEW": 5}


class Saved:
    """What the tests share: the stage, and the snapshots by what they are for."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.url = stage, str(folder / "snapshots")
        self.names: dict[str, str] = {}

    @property
    def store(self) -> SnapshotStore:
        return SnapshotStore(self.url, APP)

    def manifest(self, which: str) -> Manifest:
        return self.store.manifest(self.names[which])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    folder = tmp_path_factory.mktemp("models")
    with EmbeddedKafka(folder / "broker") as kafka, Lives() as lives:
        yield Saved(Stage(kafka.bootstrap, lives, folder, 1_000), folder)


@pytest.fixture(autouse=True)
def _nobody_stays(kept: Saved) -> Iterator[None]:
    yield
    kept.stage.lives.end()


@pytest.fixture(autouse=True)
def _settings(kept: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith((PREFIX, "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kept.stage.bootstrap)
    # Another home than the worker's: a save needs nothing of its machine.
    for name, value in {
        "app": APP,
        "home": tmp_path,
        "partitions": PARTITIONS,
        "snapshots": kept.url,
        "web_port": 9,
    }.items():
        monkeypatch.setenv(PREFIX + name.upper(), str(value))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", "models", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def save(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    status = run(monkeypatch, "save", *arguments)
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out.strip()


def start_from(kept: Saved, name: str) -> dict[str, Any]:
    return {"start_from": name, "snapshots": kept.url}


def active(kept: Saved) -> str:
    record = read_active(kept.stage.bootstrap, APP)
    assert record is not None
    return record.version


def serving(kept: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stage compare the version that is active."""
    monkeypatch.setattr(stage_module, "VERSION", active(kept))


def test_there_is_nothing_to_save_before_a_worker_has_learned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kept: Saved
) -> None:
    assert run(monkeypatch, "save") == 1
    assert "there is no version v1 of modelled to save" in capsys.readouterr().err
    ensure_topics(kept.stage.bootstrap, specs(APP, "v1", PARTITIONS))
    assert run(monkeypatch, "save") == 1
    assert "has learned nothing yet" in capsys.readouterr().err
    assert kept.store.names() == []


def test_a_save_beside_a_worker_that_learns_disturbs_nothing(
    kept: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = kept.stage
    before = stage.dead_letters()
    life = stage.start(APP, constants=CONSTANTS)
    life.until(lambda: life.totals().get("learned", 0) > 300 or None, "it does not learn")
    over = threading.Event()

    def go_on() -> None:
        for seed in range(100, 200):
            stage.append(simulate(seed, 100))
            if over.wait(0.1):
                return

    more = threading.Thread(target=go_on)
    more.start()
    kept.names["early"] = save(monkeypatch, capsys)
    assert more.is_alive(), "events were to arrive all the while"
    over.set()
    more.join()
    ends = kept.manifest("early").cuts
    assert 0 < sum(cut["interactions"] for cut in ends.values()) < len(stage.log)
    stage.finish(APP, life, before)
    kept.names["late"] = save(monkeypatch, capsys)
    # It is exactly what the worker has on its disk.
    assert rows_of(kept, "late") == stores(stage.folder / APP)


def rows_of(kept: Saved, which: str) -> dict[tuple[str, int, bytes], bytes]:
    manifest = kept.manifest(which)
    found: dict[tuple[str, int, bytes], bytes] = {}
    for file in manifest.files:
        if file.table != "evidence":
            rows = pq.read_table(f"{kept.url}/{APP}/{manifest.name}/{file.name}").to_pylist()
            found |= {(str(file.table), file.partition, row["key"]): row["value"] for row in rows}
    return found


def test_a_worker_whose_disk_is_lost_starts_from_a_snapshot(kept: Saved) -> None:
    """From one of before: what has come since is read from the changelogs."""
    stage = kept.stage
    lost = stage.folder / APP
    before = stores(lost)
    shutil.rmtree(lost / "state")
    life = stage.start(APP, **start_from(kept, kept.names["early"]))
    stage.settled(life, APP)
    life.stop()
    assert stores(lost) == before
    assert life.log.count("store filled from a snapshot") == 2 * PARTITIONS
    assert not list(lost.rglob("*.filling"))


def refused(kept: Saved, folder: Path, name: str, url: str) -> bool:
    """Whether an empty disk is left as it is."""
    start = StartFrom(url, name, APP, "v1", PARTITIONS)
    fill_stores(kept.stage.bootstrap, ShardTopics.of(APP, "v1"), 1, folder, start)
    return not list(folder.glob("*"))


FETCH = SnapshotStore.fetch


def filled(kept: Saved, folder: Path, name: str, url: str) -> bool:
    """Take both shards over on an empty disk, in this process; whether their stores were filled. The rows must be right anyhow."""
    start = StartFrom(url, name, APP, "v1", PARTITIONS)
    topics = ShardTopics.of(APP, "v1")

    async def take() -> None:
        for partition in range(PARTITIONS):
            writer, shard = await take_over(kept.stage.bootstrap, topics, partition, folder / "state" / "v1", start)
            await writer.stop()
            shard.close()

    fetched: list[str] = []

    def fetch(store: SnapshotStore, manifest: Manifest, file: PackedFile, target: Path) -> None:
        FETCH(store, manifest, file, target)
        fetched.append(file.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SnapshotStore, "fetch", fetch)
        asyncio.run(take())
    assert stores(folder) == stores(kept.stage.folder / APP)
    assert len(fetched) in (0, 2 * PARTITIONS)
    return bool(fetched)


def altered(kept: Saved, url: str, which: str, **changed: object) -> str:
    """A copy of a snapshot in another store, with another manifest."""
    manifest = kept.manifest(which)
    shutil.copytree(f"{kept.url}/{APP}/{manifest.name}", f"{url}/{APP}/{manifest.name}")
    kept_store = SnapshotStore(url, APP)
    kept_store._write(f"{manifest.name}/saving.json", b"{}")
    kept_store.finish(msgspec.structs.replace(manifest, **changed))
    return manifest.name


def test_what_does_not_fit_is_refused_and_the_changelog_read(
    kept: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert filled(kept, tmp_path / "good", "latest", kept.url)
    assert not filled(kept, tmp_path / "none", "promoted", kept.url)
    manifest = kept.manifest("early")

    def moved(**changed: object) -> list[object]:
        return [msgspec.structs.replace(file, **changed) for file in manifest.files]

    cases: dict[str, tuple[dict[str, object], str]] = {
        "offset": ({"files": moved(offset=10**9)}, "the log was wiped"),
        "topic": ({"files": moved(topic_id="another")}, "created anew"),
        "version": ({"version": "v7"}, "is of version v7, this worker of version v1"),
        "partitions": ({"partitions": 7}, "is of partitions 7"),
        "age": ({"created_ms": manifest.created_ms - 24 * 3_600_000}, "delete.retention.ms"),
        "files": ({"files": []}, "no files of shard"),
    }
    for case, (changed, why) in cases.items():
        url = str(tmp_path / f"store-{case}")
        name = altered(kept, url, "early", **changed)
        assert refused(kept, tmp_path / case, name, url), case
        said = capsys.readouterr()
        assert why in said.out + said.err, case
    for url, name in ((kept.url, "v1-none"), (kept.url, "promoted"), ("nothing://there", "latest")):
        assert refused(kept, tmp_path / f"{name}-{url[:3]}", name, url)
        said = capsys.readouterr()
        assert "the snapshot is not used" in said.out + said.err


def test_a_snapshot_with_one_wrong_byte_is_refused_and_the_file_named(
    kept: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "broken")
    shutil.copytree(kept.url, url)
    broken = Path(url) / APP / kept.names["late"] / "users-1.parquet"
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    folder = tmp_path / "shards"
    for partition in range(PARTITIONS):
        start = StartFrom(url, kept.names["late"], APP, "v1", PARTITIONS)
        fill_stores(kept.stage.bootstrap, ShardTopics.of(APP, "v1"), partition, folder, start)
    said = capsys.readouterr()
    assert f"{kept.names['late']}/users-1.parquet is not as it was saved" in said.out + said.err
    assert sorted(path.name for path in folder.iterdir()) == ["items-0", "users-0"]
    monkeypatch.setenv("HEADRACE_SNAPSHOTS", url)
    for command in ("promote", "export"):
        arguments = ["--to", str(tmp_path / "out"), "--users"] if command == "export" else []
        assert run(monkeypatch, command, kept.names["late"], *arguments) == 1
        assert "users-1.parquet is not as it was saved" in capsys.readouterr().err
    assert not (Path(url) / APP / "promoted.json").exists()


def test_a_store_that_holds_anything_is_left_alone(kept: Saved, tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "users-0")
    store.write([(b"u:mine", b"row")], 1)
    store.close()
    start = StartFrom(kept.url, "latest", APP, "v1", PARTITIONS)
    fill_stores(kept.stage.bootstrap, ShardTopics.of(APP, "v1"), 0, tmp_path, start)
    store = RocksStore(tmp_path / "users-0")
    assert (store.get(b"u:mine"), store.offset()) == (b"row", 1)
    store.close()
    filled_beside = RocksStore(tmp_path / "items-0")
    assert filled_beside.offset() == kept.manifest("late").file("items", 0).offset
    filled_beside.close()


KILLED = """
import os, signal, sys
from state.snapshot_store import SnapshotStore
put, left = SnapshotStore.put, [3]
def dies(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(*arguments)
SnapshotStore.put = dies
from cli.main import main
sys.argv = ["headrace", "models", "save"]
main()
"""


def test_a_save_that_is_killed_leaves_nothing_that_is_listed(
    kept: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept.store.names()
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert kept.store.names() == before
    [left] = {path.name for path in Path(kept.url, APP).iterdir() if path.is_dir()} - set(before)
    assert (Path(kept.url) / APP / left / "users-0.parquet").exists()
    name = save(monkeypatch, capsys)
    assert kept.store.names() == sorted([*before, name])
    assert {path.name for path in Path(kept.url, APP).iterdir() if path.is_dir()} == {*before, name}
    assert run(monkeypatch, "remove", name) == 0
    assert kept.store.names() == before


def test_a_save_in_memory_is_the_same(
    kept: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = save(monkeypatch, capsys, "--to", "memory://models")
    assert SnapshotStore("memory://models", APP).names() == [name]
    assert filled(kept, tmp_path / "from-memory", name, "memory://models")


def test_what_is_saved_is_listed_shown_and_exported(
    kept: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, "list") == 0
    said = capsys.readouterr().out
    for which in ("early", "late"):
        assert f"{sum(cut['interactions'] for cut in kept.manifest(which).cuts.values()):,}" in said
    assert run(monkeypatch, "show", "latest") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == kept.names["late"]
    assert shown["configuration"]["partitions"] == PARTITIONS
    target = tmp_path / "plain"
    assert run(monkeypatch, "export", kept.names["late"], "--to", str(target), "--users") == 0
    videos = pq.read_table(target / "videos.parquet").to_pydict()
    count = len(videos["video_id"])
    assert count == stage_module.VIDEOS
    recount = kept.stage.recount
    for row, video_id in enumerate(videos["video_id"]):
        assert videos["positives"][row] == recount.plays[video_id]
        for number, kind in enumerate(EVENTS):
            assert videos[f"events_{kind}"][row] == recount.items[video_id, number]
    assert np.load(target / "item_factors.npy").shape == (count, 32)
    lengths = np.linalg.norm(np.load(target / "video_embeddings.npy"), axis=1)
    assert np.allclose(lengths, 1, atol=0.05)
    assert json.loads((target / "ranker.json").read_bytes())["compared"] > 0
    users = pq.read_table(target / "user_profiles.parquet").to_pylist()
    assert len({row["user_id"] for row in users}) == len(users)
    assert {row["user_id"]: row["history"] for row in users} == {
        user_id: plain.history for user_id, plain in recount.users.items()
    }
    assert run(monkeypatch, "export", kept.names["late"], "--to", str(target)) == 1
    assert "is not an empty folder" in capsys.readouterr().err


def test_a_snapshot_of_the_version_that_serves_is_promoted_by_a_note(
    kept: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "rollback") == 1
    assert "nothing to go back to" in capsys.readouterr().err
    for which in ("early", "late"):
        assert run(monkeypatch, "promote", kept.names[which]) == 0
    assert read_active(kept.stage.bootstrap, APP) is None
    assert kept.store.resolve("promoted", "").name == kept.names["late"]
    assert run(monkeypatch, "remove", kept.names["late"]) == 1
    assert "is promoted" in capsys.readouterr().err
    assert run(monkeypatch, "rollback") == 0
    assert kept.store.resolve("promoted", "").name == kept.names["early"]
    assert run(monkeypatch, "rollback") == 1
    kept.store.write_promotions(type(kept.store.promotions())())


def test_a_removed_version_comes_back_from_its_snapshots(
    kept: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Imported, a snapshot of while the worker was learning is worth as much as the log: nothing is lost, nothing counts twice."""
    stage = kept.stage
    ensure_topics(stage.bootstrap, [versions_spec(APP), *specs(APP, "v2", PARTITIONS)])
    write_active(stage.bootstrap, APP, Active("v2", 1, "v1"))
    versions(remove="v1")
    shutil.rmtree(stage.folder / APP / "state" / "v1")
    capsys.readouterr()

    assert run(monkeypatch, "promote", kept.names["late"]) == 0, capsys.readouterr().err
    assert "version v1 has been removed: importing the snapshot as version v3" in capsys.readouterr().err
    assert active(kept) == "v3"
    serving(kept, monkeypatch)
    imported = {
        (table, *place): value for table in ("users", "items") for place, value in stage.table(APP, table).items()
    }
    saved = rows_of(kept, "late")
    assert imported.keys() == saved.keys()
    assert {place for place in saved if saved[place] != imported[place]} == {
        ("users", partition, b"!cut") for partition in range(PARTITIONS)
    }

    # What v3 has read already, as its group says, is learned once more, and no dead letter written twice.
    assert run(monkeypatch, "promote", kept.names["early"]) == 0, capsys.readouterr().err
    assert active(kept) == "v4"
    serving(kept, monkeypatch)
    stage.extend(200, 300)
    stage.finish(APP, stage.start(APP), Counter())

    assert run(monkeypatch, "rollback") == 0, capsys.readouterr().err
    assert (active(kept), kept.store.resolve("promoted", "").name) == ("v3", kept.names["late"])
